// Spawns agents, takes uploads, says how it is. Its toggles are read once, at its start.

import cluster from 'node:cluster';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

import { count, observe, page } from './lib/metrics.js';
import { answers } from './lib/memory.js';
import { spawnAgents } from './lib/spawning.js';
import { upload } from './lib/uploads.js';
import * as tracking from './lib/tracking.js';

const { version } = JSON.parse(readFileSync(new URL('package.json', import.meta.url)));

async function body(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return JSON.parse(Buffer.concat(pieces).toString() || '{}');
}

const routes = {
  'GET /api/health': async () => {
    const well = answers();
    return [well ? 200 : 503, { status: well ? 'ok' : 'unhealthy', version, timestamp: new Date().toISOString() }];
  },
  'POST /api/spawn': async (request) => [200, { agents: await spawnAgents((await body(request)).agents ?? 1) }],
  // 207: some of the files are stored and some are not.
  'POST /api/upload': async (request) => {
    const files = await upload((await body(request)).files ?? []);
    return [files.every((file) => file.stored) ? 200 : 207, { files }];
  },
};

const server = createServer(async (request, response) => {
  const began = performance.now();
  if (request.url === '/metrics') return response.end(page());
  const route = `${request.method} ${request.url}`;
  let status, answer;
  try {
    [status, answer] = routes[route] ? await routes[route](request) : [404, { error: 'there is no such thing here' }];
  } catch (error) {
    console.error(`${new Date().toISOString()} ERROR ${route}: ${error.message}`);
    [status, answer] = [500, { error: error.message }];
  }
  const labels = { route: routes[route] ? request.url.split('/').pop() : 'other', status };
  count('http_requests_total', labels);
  observe('http_request_duration_seconds', { route: labels.route }, (performance.now() - began) / 1000);
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
});

tracking.start();
server.listen(Number(process.env.PORT), '127.0.0.1', () => {
  console.log(`${new Date().toISOString()} INFO version ${version} listens at ${process.env.PORT}`);
  process.send?.('ready');
});

// What was begun is finished before it ends.
process.on('SIGINT', () => {
  const end = () => {
    server.closeIdleConnections();
    server.getConnections((_, open) => (open === 0 ? process.exit(0) : setTimeout(end, 50)));
  };
  // A connection that pm2 was about to hand to this worker goes to another one.
  if (cluster.isWorker) cluster.worker.on('disconnect', end).disconnect();
  else server.close(end);
});
