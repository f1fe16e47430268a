// What pm2 runs: one worker in cluster mode, so that a reload starts the next one before it ends this one.
const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { parseEnv } = require('node:util');

const at = (...names) => join(__dirname, ...names);

module.exports = {
  apps: [
    {
      name: 'spawn-upload-app',
      cwd: at('app'),
      script: at('app/server.js'),
      exec_mode: 'cluster',
      instances: 1,
      wait_ready: true,
      listen_timeout: 8000,
      kill_timeout: 5000,
      merge_logs: true,
      out_file: at('logs/app.log'),
      error_file: at('logs/app.log'),
      env: {
        ...parseEnv(readFileSync(at('.env'), 'utf8')),
        MEMORY_DB: at('.swarm/memory.db'),
        STORE_DIR: at('uploads'),
      },
    },
  ],
};
