// Asynchronous work is awaited; the module is loaded once per instance.
const { setTimeout: sleep } = require('timers/promises');

let calls = 0;

exports.handler = async (event, context) => {
  calls += 1;
  console.log(`execution ${context.execution_id}: ${context.get_remaining_time_in_millis()} ms left`); // the log
  const parts = await Promise.all((event.items || []).map(async (item, index) => {
    await sleep(20); // all at the same time
    return { index, item, length: String(item).length };
  }));
  return { parts, calls };
};
