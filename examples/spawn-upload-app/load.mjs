// People: the health page ten times a second, uploads of three files five times a second, a spawn each second. Writes what did not go
// well to logs/users.log, and how many requests were answered to logs/users.json. Ends when it is told to.

import { appendFileSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';

const at = (name) => new URL(`logs/${name}`, import.meta.url);
const port = process.argv[2];
const counts = { requests: 0, unanswered: 0 };
mkdirSync(at('.'), { recursive: true });

function ask(method, path, body) {
  const failed = (what) => appendFileSync(at('users.log'), `${new Date().toISOString()} ${method} ${path}: ${what}\n`);
  const unanswered = (error) => {
    counts.unanswered += 1;
    failed(`no answer: ${error.code ?? error.message}`);
  };
  const asked = request({ host: '127.0.0.1', port, method, path, agent: false, timeout: 10_000 }, (answer) => {
    counts.requests += 1;
    answer.on('error', unanswered).resume();
    if (answer.statusCode !== 200) failed(answer.statusCode);
  });
  asked.on('timeout', () => asked.destroy(new Error('timeout'))).on('error', unanswered);
  asked.end(body && JSON.stringify(body));
}

const files = ['a', 'b', 'c'].map((name) => ({ name: `${name}.txt`, content: name.repeat(1000) }));
setInterval(() => ask('GET', '/api/health'), 100);
setInterval(() => ask('POST', '/api/upload', { files }), 200);
setInterval(() => ask('POST', '/api/spawn', { agents: 1 }), 1000);
setInterval(() => {
  writeFileSync(at('users.new'), JSON.stringify(counts));
  renameSync(at('users.new'), at('users.json'));
}, 200);
