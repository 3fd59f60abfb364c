// Man pages, shell completions and the README's table of commands from the command table; C++ headers from TypeScript tables. `--check` only compares; the conventions test uses it.
import fs from 'node:fs';
import path from 'node:path';
import { generated } from '../src/cli/help/man.js';
import { sharedHeaders } from './shared.js';

const check = process.argv.includes('--check');
let stale = 0;
const files = new Map([...(await generated(fs.readFileSync('README.md', 'utf8'))), ...sharedHeaders]);
for (const [file, text] of files) {
  if (fs.existsSync(file) && fs.readFileSync(file, 'utf8') === text) continue;
  stale++;
  if (check) console.error(`stale: ${file}`);
  else {
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, text);
  }
}
for (const dir of ['man', 'completions']) {
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
