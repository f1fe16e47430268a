// Spawns agents, one after the other or all at once.

import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';

import { remember } from './memory.js';
import { track } from './tracking.js';

const parallel = process.env.ENABLE_PARALLEL_SPAWNING === 'true';
// How long an agent takes to come up.
const START_MS = 750;

async function spawnOne() {
  const agent = `agent-${randomUUID().slice(0, 8)}`;
  await wait(START_MS);
  remember(agent, 'spawned');
  await track(agent, 'spawned');
  return agent;
}

export async function spawnAgents(number) {
  console.log(`${new Date().toISOString()} INFO ${parallel ? 'parallel' : 'sequential'} agent spawning: ${number}`);
  if (parallel) return Promise.all(Array.from({ length: number }, spawnOne));
  const agents = [];
  while (agents.length < number) agents.push(await spawnOne());
  return agents;
}
