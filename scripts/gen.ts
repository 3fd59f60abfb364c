// Man pages, shell completions and the README's table of commands from the command table; JSON Schemas from the types of documents;
// C++ enumerations from TypeScript tables. `--check` only compares; the conventions test does the same.
import fs from 'node:fs';
import path from 'node:path';
import { allGenerated } from './generated.js';

const check = process.argv.includes('--check');
let stale = 0;
const files = await allGenerated();
for (const [file, text] of files) {
  if (fs.existsSync(file) && fs.readFileSync(file, 'utf8') === text) continue;
  stale++;
  if (check) console.error(`stale: ${file}`);
  else {
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, text);
  }
}
for (const dir of ['man', 'completions', 'schemas']) {
  for (const name of fs.existsSync(dir) ? fs.readdirSync(dir) : []) {
    if (files.has(`${dir}/${name}`)) continue;
    stale++;
    if (check) console.error(`no command for: ${dir}/${name}`);
    else fs.rmSync(`${dir}/${name}`);
  }
}
if (check && stale > 0) {
  console.error('run: npm run gen');
  process.exitCode = 1;
}
