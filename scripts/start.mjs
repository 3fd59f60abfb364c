// `npm start`: sets everything up and shows the main job. A disk image is served over NVMe/TCP on loopback, found by
// discovery, identified, written and read back by the user-space host with digests, and compared. No root, no kernel module.
import { spawn, spawnSync } from 'node:child_process';
import { createHash, randomFillSync } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const program = path.join(root, 'bin', 'run.js');
const MiB = 1 << 20;
const size = 128 * MiB;

/** Runs a step of the set-up; its output is shown only if it fails. */
function step(title, command, args) {
  process.stdout.write(`${title} ... `);
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: root, encoding: 'utf8', maxBuffer: 64 * MiB });
  if (status !== 0) {
    console.log('failed');
    console.error(`${stdout ?? ''}${stderr ?? ''}${error ? error.message : ''}`);
    process.exit(1);
  }
  console.log('done');
}

if (!fs.existsSync(path.join(root, 'node_modules', 'esbuild'))) step('npm ci', 'npm', ['ci', '--no-audit', '--no-fund']);
step('build (addon and bundle)', process.execPath, [path.join(root, 'scripts', 'build.mjs')]);

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-demo-'));
let server;
let serverEnded;

/** Shows a command as a user would type it, runs it, and returns its stdout; `input` goes to its stdin. */
async function vioctl(args, input) {
  console.log(`\n$ vioctl ${args.join(' ')}${input ? ' < data' : ''}`);
  const child = spawn(process.execPath, [program, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  const chunks = [];
  child.stdout.on('data', (chunk) => chunks.push(chunk));
  child.stdin.on('error', () => {}); // it may end before it has read all; its status tells why
  child.stdin.end(input);
  const status = await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  if (status !== 0) throw new Error(`vioctl ${args.slice(0, 2).join(' ')} ended with status ${status}`);
  return Buffer.concat(chunks);
}

/** Starts the target and waits for its one JSON document. */
async function serve(image) {
  const args = ['nvmf', 'serve', image, '--listen', '127.0.0.1:0', '--json', '--quiet'];
  console.log(`\n$ vioctl ${args.join(' ')} &`);
  server = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  serverEnded = new Promise((resolve) => server.on('close', (status, signal) => resolve(signal ?? status)));
  let text = '';
  const ready = (async () => {
    for await (const chunk of server.stdout) {
      text += chunk;
      try {
        return JSON.parse(text);
      } catch {
        // not all of it is here yet
      }
    }
    throw new Error('the target ended before it was ready');
  })();
  return ready;
}

const sha256 = (data) => createHash('sha256').update(data).digest('hex');
const rate = (ms) => `${Math.round(size / MiB / (ms / 1000))} MiB/s`;

async function main() {
  const image = path.join(dir, 'disk.img');
  fs.closeSync(fs.openSync(image, 'w'));
  fs.truncateSync(image, size);
  const { listen, subsystems } = await serve(image);
  const { address, port } = listen[0];
  const { nqn } = subsystems[0];
  console.log(`serving ${nqn} on ${address} port ${port}`);

  const target = ['-a', address, '-s', String(port)];
  process.stdout.write(await vioctl(['nvmf', 'discover', ...target]));

  const host = [...target, '-n', nqn, '--hdr-digest', '--data-digest'];
  const controller = JSON.parse(await vioctl(['nvmf', 'identify', ...host, '--json']));
  const [ns] = controller.namespaces;
  console.log(
    `${controller.mn} ${controller.sn}, controller ${controller.cntlid}: namespace ${ns.nsid} of ${ns.size / MiB} MiB, ${ns.blockSize}-byte blocks`,
  );

  const data = randomFillSync(Buffer.alloc(size));
  const expected = sha256(data);
  let started = performance.now();
  await vioctl(['nvmf', 'write', ...host, '-i', '2', '--quiet'], data);
  const written = performance.now() - started;
  started = performance.now();
  const back = await vioctl(['nvmf', 'read', ...host, '-i', '2', '--quiet']);
  const read = performance.now() - started;

  server.kill('SIGTERM');
  const ended = await serverEnded;
  if (ended !== 0) throw new Error(`the target ended with ${ended}`);
  const onDisk = sha256(fs.readFileSync(image));

  console.log(`
what            bytes      time      rate        SHA-256
written     ${size}  ${(written / 1000).toFixed(2).padStart(6)} s  ${rate(written).padStart(10)}  ${expected.slice(0, 32)}…
read back   ${back.length}  ${(read / 1000).toFixed(2).padStart(6)} s  ${rate(read).padStart(10)}  ${sha256(back).slice(0, 32)}…
disk image  ${size}                        ${onDisk.slice(0, 32)}…`);
  if (sha256(back) !== expected || onDisk !== expected) throw new Error('the data is not the same');
  console.log('\nThe same bytes everywhere. (Times include starting the program; digests were on; the write ends with a flush.)');
}

try {
  await main();
} catch (err) {
  console.error(`\nnpm start: ${err.message}`);
  process.exitCode = 1;
} finally {
  if (server && server.exitCode === null && server.signalCode === null) {
    server.kill('SIGTERM');
    await serverEnded;
  }
  fs.rmSync(dir, { recursive: true, force: true });
}
