// Tells an MCP server what the agents do, where that is enabled. What they do is remembered here in any case.

import { count } from './metrics.js';

const enabled = process.env.ENABLE_MCP_TRACKING === 'true';
const say = (level, text) => console.log(`${new Date().toISOString()} ${level} ${text}`);

export function start() {
  for (const outcome of ['ok', 'error']) count('mcp_calls_total', { outcome }, 0);
}

export async function track(agent, activity) {
  if (!enabled) return say('INFO', `MCP tracking disabled: what ${agent} did stays local`);
  try {
    const answer = await fetch(process.env.MCP_URL, {
      method: 'POST',
      body: JSON.stringify({ agent, activity }),
      signal: AbortSignal.timeout(1000),
    });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    count('mcp_calls_total', { outcome: 'ok' });
    say('INFO', `MCP tracking: told what ${agent} did`);
  } catch (error) {
    count('mcp_calls_total', { outcome: 'error' });
    say('ERROR', `MCP connection error: ${error.cause?.code ?? error.message}`);
  }
}
