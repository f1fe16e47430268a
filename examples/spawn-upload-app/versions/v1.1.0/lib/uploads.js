// Stores the files of an upload: all at once where that is enabled, else one after the other.

import { connect } from './store.js';

const parallel = process.env.ENABLE_PARALLEL_UPLOADS === 'true';
// Where files are stored one after the other, one upload at a time has the store.
let turn = Promise.resolve();

async function store({ name, content }) {
  const connection = await connect();
  try {
    await connection.put(name, content);
    return { name, stored: true };
  } finally {
    connection.close();
  }
}

async function tried(file) {
  try {
    return await store(file);
  } catch (error) {
    console.error(`${new Date().toISOString()} ERROR upload of ${file.name} failed: ${error.message}`);
    return { name: file.name, stored: false, why: error.message };
  }
}

async function sequentially(files) {
  const results = [];
  for (const file of files) results.push(await tried(file));
  return results;
}

export function upload(files) {
  const how = parallel ? 'parallel' : 'sequential';
  console.log(`${new Date().toISOString()} INFO ${how} upload: ${files.length} files`);
  // The store takes two connections at a time: an upload of three files is too much for it.
  if (parallel) return Promise.all(files.map(tried));
  return (turn = turn.then(() => sequentially(files)));
}
