import { spawnSync } from 'node:child_process';
import path from 'node:path';

/** The addon under test: the sanitised build where `npm run test:asan` names it. */
export const addonFile = path.resolve(process.env.VIOCTL_ADDON ?? path.join(__dirname, '../../build/native/release/vioctl.node'));

/** Beginning of a script that has the addon as `addon` and node:fs as `fs`. */
export const preamble = `
const fs = require('node:fs');
const holder = { exports: {} };
process.dlopen(holder, ${JSON.stringify(addonFile)});
const addon = holder.exports;
`;

/** What a script without TypeScript did in a Node of its own, so that a crash is a result and not the end of the tests. */
export function runScript(script: string, options: { env?: NodeJS.ProcessEnv; node?: string; timeout?: number } = {}) {
  const { status, signal, stdout, stderr } = spawnSync(options.node ?? process.execPath, ['-e', preamble + script], {
    encoding: 'utf8',
    timeout: options.timeout ?? 60_000,
    env: { ...process.env, NODE_OPTIONS: '', ...options.env },
  });
  return { status, signal, stdout, stderr: stderr.slice(-2000) };
}
