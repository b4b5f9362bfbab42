/* Runs Node.js functions inside an instance; the other side is src/init/protocol.h.
 *
 *     node adapter.js process index.js         a zygote: forks a child for each invocation, which then is what
 *                                              `node index.js` would be (zygote/zygote.c). Where it cannot be forked, it
 *                                              waits for one invocation itself
 *     node adapter.js handler index.handler    loads the module once, calls the handler once per invocation
 *     node adapter.js generic                  becomes one of the two when it is told which (a LOAD frame)
 *
 * Descriptor 3 is a socket: to faas-init (process) or to the worker (handler). When it is not (somebody
 * runs the bundle by hand), one invocation is served: payload on standard input, result on standard output.
 * A generic one has the worker's socket as 3 and faas-init's as 4, and keeps the one that its role has.
 *
 * Writes to standard output and error are made blocking: what a function logged is in the pipe before its
 * answer is sent, and process.exit() loses nothing of it. (Node.js calls pipes synchronous, but they are only as long
 * as there is room in them.) */
'use strict';

const fs = require('fs');
const path = require('path');

const FRAME = { INVOKE: 1, READY: 2, RESULT: 4, ERROR: 5, LOAD: 7, LOG: 8 };
const FLAG_DIRTY = 2;
const FLAG_STANDS_BY = 4;
const HEADER_BYTES = 16;
const META_MAX = 4096;
const BODY_MAX = 64 * 1024 * 1024;
const PAYLOAD_ENV_MAX = 96 * 1024;
const SOCKET = 3;
const KEEPER_SOCKET = 4;
const MESSAGE_MAX = 16 * 1024;
const STACK_FRAMES_MAX = 64;
const OWN_FOLDER = __dirname + path.sep;

// The function's code may replace these.
const { parse, stringify } = JSON;
const exit = process.exit.bind(process);
const now = performance.now.bind(performance);

function makeOutputBlocking() {
  for (const stream of [process.stdout, process.stderr]) stream._handle?.setBlocking?.(true);
}

// ---- the addon ----

let addon; // undefined: not looked for yet

/* zygote/zygote.c; null where there is none that fits. */
function loadAddon() {
  if (addon !== undefined) return addon;
  const module = { exports: {} };
  try {
    process.dlopen(module, path.join(__dirname, 'zygote.node'));
    addon = module.exports;
  } catch {
    addon = null;
  }
  return addon;
}

// ---- frames ----

function encodeFrame(type, body, { flags = 0, value = 0, meta = '' } = {}) {
  const frame = Buffer.alloc(HEADER_BYTES + meta.length + body.length);
  frame.writeUInt16LE(type, 0);
  frame.writeUInt16LE(flags, 2);
  frame.writeUInt32LE(meta.length, 4);
  frame.writeUInt32LE(body.length, 8);
  frame.writeUInt32LE(value, 12);
  frame.latin1Write(meta, HEADER_BYTES);
  body.copy(frame, HEADER_BYTES + meta.length);
  return frame;
}

/* Puts INVOKE frames together from pieces; calls `onInvoke(execution id, timeout in ms, body)`. Throws for
 * anything that is no such frame. */
class FrameReader {
  constructor(onInvoke) {
    this.onInvoke = onInvoke;
    this.pieces = [];
    this.have = 0;
    this.need = HEADER_BYTES;
    this.header = null;
  }

  add(piece) {
    this.pieces.push(piece);
    this.have += piece.length;
    while (this.have >= this.need) {
      const all = this.pieces.length === 1 ? this.pieces[0] : Buffer.concat(this.pieces);
      const part = all.subarray(0, this.need);
      this.pieces = [all.subarray(this.need)];
      this.have -= this.need;
      this.header ? this.takeRest(part) : this.takeHeader(part);
    }
  }

  takeHeader(part) {
    const header = {
      type: part.readUInt16LE(0),
      metaLength: part.readUInt32LE(4),
      bodyLength: part.readUInt32LE(8),
      value: part.readUInt32LE(12),
    };
    if (header.type !== FRAME.INVOKE || header.metaLength > META_MAX || header.bodyLength > BODY_MAX)
      throw new Error('not a frame that is expected here');
    this.header = header;
    this.need = header.metaLength + header.bodyLength;
  }

  takeRest(part) {
    const { metaLength, value } = this.header;
    this.header = null;
    this.need = HEADER_BYTES;
    this.onInvoke(part.toString('utf8', 0, metaLength), value, part.subarray(metaLength));
  }
}

// ---- errors ----

class HandlerNotFound extends Error {}

function isOwnFrame(line) {
  return line.includes(OWN_FOLDER) || line.includes('(node:') || line.includes(' node:');
}

/* The function's own frames; for a syntax error also the place, which stands before the message. */
function stackOf(error) {
  const lines = String(error.stack || '').split('\n');
  const frames = lines.filter((line) => /^\s+at /.test(line) && !isOwnFrame(line)).map((line) => line.trim());
  if (error instanceof SyntaxError && /:\d+$/.test(lines[0])) frames.unshift(`at ${lines[0]}`);
  return frames.slice(0, STACK_FRAMES_MAX);
}

function typeOf(error) {
  if (error instanceof HandlerNotFound) return 'Function.HandlerNotFound';
  return String(error.name || error.constructor?.name || 'Error');
}

/* {"type", "message", "stack"} as JSON, of whatever was thrown: it need not be an Error. */
function describe(error) {
  let described;
  try {
    if (error !== null && typeof error === 'object' && ('message' in error || 'stack' in error))
      described = { type: typeOf(error), message: String(error.message), stack: stackOf(error) };
    else described = { type: 'Error', message: `a value that is no Error was thrown: ${String(error)}`, stack: [] };
  } catch {
    described = { type: 'Error', message: "(the error's text could not be made)", stack: [] };
  }
  described.message = described.message.slice(0, MESSAGE_MAX).toWellFormed();
  described.type = described.type.slice(0, 256).toWellFormed();
  return Buffer.from(stringify(described));
}

/* The same, for each of the calls that the end of the process takes along. */
function describeUncaught(error, others) {
  const described = parse(describe(error));
  if (others > 0) described.message += ` (nobody caught it; ${others} other call${others === 1 ? '' : 's'} ran in the instance)`;
  return Buffer.from(stringify(described));
}

// ---- the function ----

/* The file of a module, as `require` would find it, but below the function's folder. */
function findModule(name) {
  const base = path.resolve(process.cwd(), name);
  for (const suffix of ['.js', '.mjs', '.cjs', '/index.js', '/index.mjs', ''])
    if (fs.statSync(base + suffix, { throwIfNoEntry: false })?.isFile()) return base + suffix;
  return null;
}

/* Whether the nearest package.json says that .js files are ES modules. */
function inModulePackage(file) {
  for (let folder = path.dirname(file); ; folder = path.dirname(folder)) {
    try {
      return parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8')).type === 'module';
    } catch (error) {
      if (error.code !== 'ENOENT') return false;
    }
    if (folder === process.cwd() || folder === path.dirname(folder)) return false;
  }
}

async function loadModule(file) {
  const load = () => import(require('url').pathToFileURL(file).href);
  if (file.endsWith('.mjs') || (file.endsWith('.js') && inModulePackage(file))) return load();
  try {
    return require(file);
  } catch (error) {
    if (error?.code === 'ERR_REQUIRE_ESM' || error?.code === 'ERR_REQUIRE_ASYNC_MODULE') return load();
    throw error;
  }
}

async function loadHandler(target) {
  const dot = target.lastIndexOf('.');
  const [moduleName, name] = [target.slice(0, Math.max(dot, 0)), target.slice(dot + 1)];
  const file = moduleName && findModule(moduleName);
  if (!file) throw new HandlerNotFound(`the handler is '${target}', but the code has no module '${moduleName}'`);
  process.argv = [process.argv[0], file];
  const loaded = await loadModule(file);
  const handler = loaded?.[name] ?? loaded?.default?.[name];
  if (typeof handler !== 'function')
    throw new HandlerNotFound(`the handler is '${target}', but '${moduleName}' exports no function '${name}'`);
  return handler;
}

class Context {
  #deadline;

  constructor(executionId, timeoutMs, started) {
    this.function_name = process.env.FUNCTION_NAME ?? '';
    this.function_version = process.env.FUNCTION_VERSION ?? '';
    this.memory_limit_mb = Number(process.env.FUNCTION_MEMORY_MB ?? 0);
    this.execution_id = executionId;
    this.aws_request_id = executionId;
    this.#deadline = started + timeoutMs;
  }

  get_remaining_time_in_millis() {
    return Math.max(0, Math.floor(this.#deadline - now()));
  }
}

function parsePayload(body) {
  try {
    return parse(body.toString());
  } catch (error) {
    throw new SyntaxError(`the payload is not JSON: ${error.message}`);
  }
}

function encodeResult(result) {
  try {
    return Buffer.from(stringify(result) ?? 'null');
  } catch (error) {
    throw new TypeError(`the result cannot be JSON: ${error.message}`);
  }
}

/* The result as JSON text; throws what the handler throws. */
async function callBare(handler, executionId, timeoutMs, body) {
  const started = now();
  return encodeResult(await handler(parsePayload(body), new Context(executionId, timeoutMs, started)));
}

/* process.env would keep memory for every value that a variable has ever had. */
function setVariable(name, bytes) {
  if (!addon?.setVariable(name, bytes)) process.env[name] = bytes.toString();
}

/* The same, with what only one call at a time can have in its environment. */
function call(handler, executionId, timeoutMs, body) {
  setVariable('EXECUTION_ID', Buffer.from(executionId));
  if (body.length <= PAYLOAD_ENV_MAX && !body.includes(0)) setVariable('FUNCTION_PAYLOAD', body);
  else delete process.env.FUNCTION_PAYLOAD;
  return callBare(handler, executionId, timeoutMs, body);
}

// ---- serving ----

class Server {
  constructor() {
    this.handler = null;
    this.busy = true; // until READY
    this.calls = null; // where several run at once
    this.socket = new (require('net').Socket)({ fd: SOCKET });
    this.reader = new FrameReader((...invocation) => this.invoke(...invocation));
  }

  async serve(target) {
    /* What nobody catches leaves the function in a state that nobody knows: it is answered, and the process ends. */
    for (const event of ['uncaughtException', 'unhandledRejection'])
      process.on(event, (error) => {
        if (process.listenerCount(event) === 1) this.fail(error);
      });
    for (const event of ['end', 'error', 'close']) this.socket.on(event, () => exit(0));
    const limit = Number(process.env.FUNCTION_CONCURRENCY ?? 1);
    if (limit === 1) loadAddon(); // before there is code of the function's
    if (limit > 1)
      this.calls = new (require('./several.js').Calls)(limit, (meta, text) =>
        this.socket.write(encodeFrame(FRAME.LOG, text, { meta })));
    try {
      this.handler = await loadHandler(target);
    } catch (error) {
      this.fail(error);
      return;
    }
    this.busy = false;
    this.socket.write(encodeFrame(FRAME.READY, Buffer.alloc(0), { value: this.calls?.limit ?? 0 }));
    this.socket.on('data', (piece) => this.take(piece));
  }

  take(piece) {
    try {
      this.reader.add(piece);
    } catch {
      exit(0);
    }
  }

  invoke(executionId, timeoutMs, body) {
    if (this.calls) return this.invokeOneOfSeveral(executionId, timeoutMs, body);
    if (this.busy) exit(0);
    this.busy = true;
    call(this.handler, executionId, timeoutMs, body).then(
      (result) => this.answer(FRAME.RESULT, result),
      (error) => this.answer(FRAME.ERROR, describe(error)),
    );
  }

  answer(type, body) {
    if (body.length > BODY_MAX) return this.answer(FRAME.ERROR, describe(new RangeError('the result is too large')));
    this.busy = false;
    this.socket.write(encodeFrame(type, body));
  }

  invokeOneOfSeveral(executionId, timeoutMs, body) {
    if (this.calls.full) exit(0);
    this.calls.run(executionId, (call) => {
      const answer = (type, text) => {
        const fits = text.length <= BODY_MAX;
        if (!this.calls.end(call)) return;
        if (!fits) [type, text] = [FRAME.ERROR, describe(new RangeError('the result is too large'))];
        this.socket.write(encodeFrame(type, text, { meta: executionId }));
      };
      callBare(this.handler, executionId, timeoutMs, body).then(
        (result) => answer(FRAME.RESULT, result),
        (error) => answer(FRAME.ERROR, describe(error)),
      );
    });
  }

  fail(error) {
    const calls = this.calls?.endAll() ?? [];
    for (const { executionId } of calls)
      this.socket.write(encodeFrame(FRAME.ERROR, describeUncaught(error, calls.length - 1), { meta: executionId, flags: FLAG_DIRTY }));
    if (this.busy) this.socket.write(encodeFrame(FRAME.ERROR, describe(error), { flags: FLAG_DIRTY }));
    else if (calls.length === 0) process.stderr.write(`${error?.stack ?? error}\n`);
    this.socket.end(() => exit(1));
  }
}

async function handleOnce(target) {
  try {
    const handler = await loadHandler(target);
    const timeoutMs = Number(process.env.FUNCTION_TIMEOUT_MS ?? 30000);
    const payload = fs.readFileSync(0);
    const body = payload.length > 0 ? payload : Buffer.from('{}');
    const result = await call(handler, process.env.EXECUTION_ID ?? 'by-hand', timeoutMs, body);
    process.stdout.write(`${result}\n`);
    exit(0);
  } catch (error) {
    process.stderr.write(`${error?.stack ?? error}\n`);
    exit(1);
  }
}

function isSocket(fd) {
  try {
    return fs.fstatSync(fd).isSocket();
  } catch {
    return false;
  }
}

// ---- contract process ----

function readExactly(socket, size) {
  const bytes = Buffer.alloc(size);
  for (let have = 0; have < size; ) {
    const got = fs.readSync(socket, bytes, have, size - have, null);
    if (got === 0) exit(0); // faas-init ends, and so does what stood by
    have += got;
  }
  return bytes;
}

/* Options of Node.js that every invocation may share: what others start (a debugger, modules of the function's) must be
 * started for each. */
const SHARED_OPTIONS =
  /^(\s*--(max-old-space-size|max-semi-space-size|stack-size|stack-trace-limit|max-http-header-size|dns-result-order|unhandled-rejections)=[\w-]+|\s*--(enable-source-maps|no-deprecation|no-warnings|trace-deprecation|trace-uncaught|trace-warnings))*\s*$/;

/* What is the parent's own in a process that was forked. */
function becomeAnother(zygote) {
  Object.defineProperty(process, 'pid', { ...Object.getOwnPropertyDescriptor(process, 'pid'), value: zygote.pid() });
  const skip = zygote.seedRandom();
  for (let i = 0; i <= skip; i++) Math.random();
  zygote.randomSeeded();
}

/* Sleeps until the invocation comes, and takes its payload: as standard input, which nothing has touched yet (a closed
 * descriptor's number is given to the next file), and in the environment. */
function standBy(socket) {
  beExpendable();
  fs.writeSync(socket, encodeFrame(FRAME.READY, Buffer.alloc(0), { flags: FLAG_STANDS_BY }));
  const header = readExactly(socket, HEADER_BYTES);
  process.env.EXECUTION_ID = readExactly(socket, Math.min(header.readUInt32LE(4), META_MAX)).toString();
  fs.closeSync(socket);
  fs.closeSync(0);
  fs.openSync(process.env.FUNCTION_PAYLOAD_FILE, 'r');
  const size = fs.fstatSync(0).size;
  if (size > PAYLOAD_ENV_MAX) return;
  const payload = Buffer.alloc(size);
  fs.readSync(0, payload, 0, size, 0);
  if (!payload.includes(0)) process.env.FUNCTION_PAYLOAD = payload.toString();
}

/* Returns in a process that has an invocation: forked from this one, or, where that cannot be, this one. */
function awaitInvocation(socket) {
  const zygote = SHARED_OPTIONS.test(process.env.NODE_OPTIONS ?? '') ? loadAddon() : null;
  if (!zygote || zygote.serve(socket) !== undefined) return standBy(socket);
  becomeAnother(zygote);
  zygote.takeInvocation();
}

/* Functions are compiled at their first call: what nearly every script calls is called here, for all children. */
function warmUp() {
  const nowhere = new (require('stream').Writable)({ write: (piece, encoding, done) => done() });
  const log = new console.Console(nowhere);
  log.log('%s %d', 'text', 1, { list: [1, 'a', null], nested: { deep: true } });
  log.error(new Error('text'));
  process.stdout.write('');
  process.emit('warmed up');
}

function runScript(script, socket) {
  const Module = require('module');
  const file = path.resolve(process.cwd(), script);
  const run = () => {
    delete require.cache[__filename];
    process.argv = [process.argv[0], file];
    setImmediate(Module.runMain, file); // called by Node.js itself: no frame of this file in a stack
  };
  if (!isSocket(socket)) {
    run();
    return;
  }
  warmUp();
  setImmediate(() => { // Node.js has ended its own start then
    awaitInvocation(socket);
    run();
  });
}

// ---- generic: before there is a function ----

function replaceEnvironment(entries) {
  for (const name of Object.keys(process.env)) delete process.env[name];
  for (const entry of entries) {
    const equals = entry.indexOf('=');
    const name = entry.slice(0, equals);
    if (!(name in process.env)) process.env[name] = entry.slice(equals + 1);
  }
}

/* When memory runs out, the function goes first. */
function beExpendable() {
  try {
    fs.writeFileSync('/proc/self/oom_score_adj', '1000');
  } catch {
    // the limit holds without it
  }
}

/* Waits for LOAD; returns mode and target when this process has become what they name. */
function takeRole(folder) {
  fs.writeSync(KEEPER_SOCKET, encodeFrame(FRAME.READY, Buffer.alloc(0)));
  const header = readExactly(KEEPER_SOCKET, HEADER_BYTES);
  const strings = readExactly(KEEPER_SOCKET, Math.min(header.readUInt32LE(8), BODY_MAX)).toString().split('\0');
  const end = strings.indexOf('');
  const [role, mode, target] = [strings[0], ...strings.slice(end - 2, end)];
  if (!['zygote/process', 'handler/handler'].includes(`${role}/${mode}`)) exit(1);
  fs.closeSync(role === 'handler' ? KEEPER_SOCKET : SOCKET);
  if (role === 'handler') beExpendable();
  replaceEnvironment(strings.slice(end + 1, -1));
  process.chdir(folder);
  return [mode, target];
}

/* Everything that both roles need, and that takes time; then it waits. */
function keep() {
  const folder = process.cwd(); // a mount will cover it: its name is entered again
  for (const name of ['module', 'net', 'url']) require(name);
  loadAddon();
  return takeRole(folder);
}

// ---- start ----

function main() {
  const generic = process.argv.length === 3 && process.argv[2] === 'generic';
  if (!generic && (process.argv.length !== 4 || !['process', 'handler'].includes(process.argv[2]))) {
    process.stderr.write('usage: adapter.js process SCRIPT | handler MODULE.FUNCTION | generic\n');
    exit(64);
  }
  makeOutputBlocking();
  const [mode, target] = generic ? keep() : process.argv.slice(2);
  if (mode === 'process') runScript(target, generic ? KEEPER_SOCKET : SOCKET);
  else if (isSocket(SOCKET)) new Server().serve(target);
  else handleOnce(target);
}

main();
