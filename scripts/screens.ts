// Takes the screens of docs/screens anew: `npx tsx scripts/screens.ts`. Look at the difference before you commit it.
import fs from 'node:fs';
import path from 'node:path';

// The tests are CommonJS and look for files from here.
Object.assign(globalThis, { __dirname: path.resolve('test/support') });
const { plain, screens, svg, takeScreens } = await import('../test/support/screens.js');

const dir = 'docs/screens';
fs.rmSync(dir, { recursive: true, force: true });
fs.mkdirSync(dir);
const taken = takeScreens();
for (const [key, screen] of taken) fs.writeFileSync(`${dir}/${key}.txt`, plain(screen));
for (const [name, command] of screens) fs.writeFileSync(`${dir}/${name}.svg`, svg(command, taken.get(`${name}.80`)!, 80));
