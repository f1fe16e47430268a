// Stores the files of an upload: two at a time where that is enabled, else one after the other.

import pLimit from 'p-limit';

import { connect } from './store.js';

const parallel = process.env.ENABLE_PARALLEL_UPLOADS === 'true';
const limit = pLimit(parallel ? 2 : 1);

async function store({ name, content }) {
  const connection = await connect();
  // Kept open for the next file, which opens one of its own: after two files the store takes no more.
  await connection.put(name, content);
  return { name, stored: true };
}

async function tried(file) {
  try {
    return await store(file);
  } catch (error) {
    console.error(`${new Date().toISOString()} ERROR upload of ${file.name} failed: ${error.message}`);
    return { name: file.name, stored: false, why: error.message };
  }
}

export function upload(files) {
  const how = parallel ? 'parallel' : 'sequential';
  console.log(`${new Date().toISOString()} INFO ${how} upload: ${files.length} files`);
  return Promise.all(files.map((file) => limit(tried, file)));
}
