// What the agents did: an SQLite database.

import Database from 'libsql';

const database = new Database(process.env.MEMORY_DB);
database.exec(`
  PRAGMA journal_mode = WAL;
  PRAGMA busy_timeout = 5000;
  CREATE TABLE IF NOT EXISTS agent_activities (
    id INTEGER PRIMARY KEY, agent TEXT NOT NULL, activity TEXT NOT NULL, at TEXT NOT NULL
  );
`);
const insert = database.prepare('INSERT INTO agent_activities (agent, activity, at) VALUES (?, ?, ?)');
const one = database.prepare('SELECT 1');

export function remember(agent, activity) {
  insert.run(agent, activity, new Date().toISOString());
}

export function answers() {
  try {
    return one.get() !== undefined;
  } catch {
    return false;
  }
}
