// clang-format over native/: in place, or --check. Says so where clang-format is not installed.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';

const check = process.argv.includes('--check');
const files = fs
  .readdirSync('native', { recursive: true })
  .filter((f) => /\.(cc|h)$/.test(f))
  .map((f) => `native/${f}`);
const { status, error } = spawnSync('clang-format', [...(check ? ['--dry-run', '--Werror'] : ['-i']), ...files], { stdio: 'inherit' });
if (error) console.error('format-native: clang-format is not installed (apt install clang-format): native/ was not checked');
else process.exitCode = status ?? 1;
