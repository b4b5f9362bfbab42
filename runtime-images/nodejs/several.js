/* Contract `handler` with several calls at once (FUNCTION_CONCURRENCY): which call is whose. What a call writes to process.stdout and
 * process.stderr goes to the worker under its execution id; promises, timers and callbacks that it begins belong to it. */
'use strict';

const { AsyncLocalStorage } = require('async_hooks');

const LOG_PIECE = 64 * 1024;

class Calls {
  #current = new AsyncLocalStorage();
  #running = new Set();
  #limit;
  #sendLog;

  /* `sendLog(execution id, Buffer)` */
  constructor(limit, sendLog) {
    this.#limit = limit;
    this.#sendLog = sendLog;
    for (const stream of [process.stdout, process.stderr]) this.#divert(stream);
  }

  get limit() {
    return this.#limit;
  }

  get full() {
    return this.#running.size >= this.#limit;
  }

  run(executionId, work) {
    const call = { executionId, over: false };
    this.#running.add(call);
    return this.#current.run(call, work, call);
  }

  /* Whether it is still to be answered; it is not any more then. */
  end(call) {
    if (call.over) return false;
    call.over = true;
    this.#running.delete(call);
    return true;
  }

  /* All that are to be answered: there is no telling which of them an error that nobody caught came from. */
  endAll() {
    return [...this.#running].filter((call) => this.end(call));
  }

  /* What is written outside of a call, or after its answer, goes to the descriptor, where nobody can tell whose it is. */
  #divert(stream) {
    const write = stream.write.bind(stream);
    stream.write = (piece, encoding, done) => {
      const call = this.#current.getStore();
      const isText = typeof piece === 'string';
      if (!call || call.over || !(isText || piece instanceof Uint8Array)) return write(piece, encoding, done);
      const bytes = isText ? Buffer.from(piece, typeof encoding === 'string' ? encoding : 'utf8') : Buffer.from(piece);
      for (let at = 0; at < bytes.length; at += LOG_PIECE)
        this.#sendLog(call.executionId, bytes.subarray(at, at + LOG_PIECE));
      const after = typeof encoding === 'function' ? encoding : done;
      if (after) process.nextTick(after);
      return true;
    };
  }
}

module.exports = { Calls };
