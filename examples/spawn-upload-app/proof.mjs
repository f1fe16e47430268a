// Proves that every feature works, in the mode that .env says: calls it, and finds the line of that mode in the log among those that
// were written since. Exit code 0, or 1 and what is wrong.

import { existsSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import { parseEnv } from 'node:util';

const at = (path) => new URL(path, import.meta.url);
const settings = parseEnv(readFileSync(at('.env'), 'utf8'));
const log = at('logs/app.log');
const from = existsSync(log) ? statSync(log).size : 0;

const post = (path, body) =>
  fetch(`http://127.0.0.1:${settings.PORT}/api/${path}`, { method: 'POST', body: JSON.stringify(body) });

const files = ['a', 'b', 'c'].map((name) => ({ name: `proof-${name}.txt`, content: name }));
const [upload, spawn] = await Promise.all([post('upload', { files }), post('spawn', { agents: 1 })]);

const wrong = [];
if (upload.status !== 200) wrong.push(`an upload answers ${upload.status}`);
if (spawn.status !== 200) wrong.push(`a spawn answers ${spawn.status}`);

function written() {
  const bytes = Buffer.alloc(statSync(log).size - from);
  readSync(openSync(log), bytes, 0, bytes.length, from);
  return bytes.toString();
}

const on = (key) => settings[key] === 'true';
const lines = {
  uploads: on('ENABLE_PARALLEL_UPLOADS') ? /parallel upload/ : /sequential upload/,
  spawning: on('ENABLE_PARALLEL_SPAWNING') ? /parallel (agent )?spawning/ : /sequential (agent )?spawning/,
  tracking: on('ENABLE_MCP_TRACKING') ? /MCP tracking: told/ : /MCP.*(unavailable|disabled)/,
};
// The log is written by pm2, a moment later.
const deadline = Date.now() + 2000;
const missing = () => Object.entries(lines).filter(([, line]) => !line.test(written()));
while (missing().length > 0 && Date.now() < deadline) await new Promise((resume) => setTimeout(resume, 50));
wrong.push(...missing().map(([feature, line]) => `${feature}: no line in the log since is ${line}`));

console.log(wrong.length > 0 ? wrong.join('; ') : `proven in the log: ${Object.values(lines).join(', ')}`);
process.exit(wrong.length > 0 ? 1 : 0);
