// The object store: a directory, which takes two connections at a time and refuses every further one.

import { mkdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';

const AT_ONCE = 2;
let open = 0;

export async function connect() {
  if (open === AT_ONCE) throw new Error('object store: too many connections');
  open += 1;
  return {
    async put(name, content) {
      await wait(10);
      await mkdir(process.env.STORE_DIR, { recursive: true });
      await writeFile(join(process.env.STORE_DIR, basename(name)), content);
    },
    close() {
      open -= 1;
    },
  };
}
