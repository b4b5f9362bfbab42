const crypto = require('crypto');

const payload = JSON.parse(process.env.FUNCTION_PAYLOAD || '{}');
const text = payload.text || '';

console.error(`hashing ${text.length} characters`); // stderr: the log
console.log(JSON.stringify({ sha256: crypto.createHash('sha256').update(text).digest('hex') })); // stdout: the result
