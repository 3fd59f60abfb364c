/** Builds the addon with AddressSanitizer and UBSan. @returns the environment of a program that uses it */
import { execFileSync } from 'node:child_process';
import path from 'node:path';

export function buildAsan(root) {
  execFileSync(process.execPath, [path.join(root, 'scripts', 'native.mjs'), '--variant', 'asan'], { stdio: 'inherit' });
  return {
    ...process.env,
    // Node itself is not instrumented: the runtime is preloaded, leaks are not judged.
    LD_PRELOAD: execFileSync(process.env.CXX || 'g++', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim(),
    VIOCTL_ADDON: path.join(root, 'build', 'native', 'asan', 'vioctl.node'),
    // SIGBUS is the addon's: its guard of mapped files (native/os/bus_guard.h) must see it first.
    ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=1:handle_segv=1:handle_sigbus=0',
    UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
  };
}
