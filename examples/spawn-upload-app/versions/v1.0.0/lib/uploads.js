// Stores the files of an upload, one after the other.

import { connect } from './store.js';

// One upload at a time has the store.
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
  console.log(`${new Date().toISOString()} INFO sequential upload: ${files.length} files`);
  return (turn = turn.then(() => sequentially(files)));
}
