// The types of `vioctl/uring` for the npm package: dist/types. The compiler writes what src/uring/index.ts reaches.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const out = path.join(root, 'dist', 'types');
const { compilerOptions } = JSON.parse(fs.readFileSync(path.join(root, 'tsconfig.json'), 'utf8'));
const config = path.join(root, 'dist', 'types.tsconfig.json');
fs.rmSync(out, { recursive: true, force: true });
fs.mkdirSync(out, { recursive: true });
const options = {
  ...compilerOptions,
  noEmit: false,
  declaration: true,
  emitDeclarationOnly: true,
  rootDir: '../src',
  outDir: 'types',
  types: ['node'],
};
fs.writeFileSync(config, JSON.stringify({ compilerOptions: options, files: ['../src/uring/index.ts'] }));
const tsc = path.join(root, 'node_modules', '.bin', 'tsc');
const { status } = spawnSync(tsc, ['-p', config], { cwd: root, stdio: 'inherit' });
fs.rmSync(config);
process.exit(status ?? 1);
