// `npm run test:asan [jest arguments]`: builds the addon with AddressSanitizer and UBSan and runs the tests that use it
// (test/native unless told otherwise). Node itself is not instrumented: the runtime is preloaded, leaks are not judged.
import { execFileSync, spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const args = process.argv.length > 2 ? process.argv.slice(2) : ['test/native'];
execFileSync(process.execPath, [path.join(root, 'scripts', 'native.mjs'), '--variant', 'asan'], { stdio: 'inherit' });
const runtime = execFileSync(process.env.CXX || 'g++', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim();
const { status } = spawnSync(process.execPath, [path.join(root, 'node_modules', 'jest', 'bin', 'jest.js'), '--runInBand', ...args], {
  stdio: 'inherit',
  cwd: root,
  env: {
    ...process.env,
    LD_PRELOAD: runtime,
    VIOCTL_ADDON: path.join(root, 'build', 'native', 'asan', 'vioctl.node'),
    // SIGBUS is the addon's: its guard of mapped files (native/os/bus_guard.h) must see it first.
    ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=1:handle_segv=1:handle_sigbus=0',
    UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
  },
});
process.exitCode = status ?? 1;
