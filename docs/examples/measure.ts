/**
 * The examples beside the same work in plain Node: `measure [ROUNDS [NAME]]`. CPU time of the process that does the work, user and system, and the time until it
 * was done; the ratios (above 1: the ring takes less) are of runs one after the other. Files are in the page cache.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { Shipper } from './ship-logs.js';
import { listen, StaticServer } from './static-server.js';
import { verify } from './verify.js';

const SERVED = 20_000;
const CLIENTS = 64;
const SUMMED = 10_000;
const LOGS = 1000;
const TURNS = 20;

/** What a way of doing the work prints when it is through. */
interface Spent {
  /** CPU milliseconds. */
  cpu: number;
  /** Milliseconds until the work was done; of a server, until all its clients had their answers. */
  wall: number;
}

/** Servers run until standard input ends; the others do their work and end. */
const ways: Record<string, (dir: string) => Promise<void>> = {
  async 'server ring'(dir) {
    const server = new StaticServer(path.join(dir, 'files'));
    const listener = await listen(0);
    const served = server.serve(listener.fd);
    await whileServing(listener.port);
    await server.close();
    await served;
    await listener.close();
  },
  async 'server node'(dir) {
    const root = path.join(dir, 'files');
    const server = http.createServer((request, answer) => {
      const name = path.join(root, path.normalize(`/${decodeURIComponent(request.url!.split('?')[0]!)}`));
      fs.readFile(name, (err, bytes) => {
        if (err) answer.writeHead(404).end();
        else answer.writeHead(200, { 'Content-Type': 'application/octet-stream', 'Content-Length': bytes.length }).end(bytes);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    await whileServing((server.address() as net.AddressInfo).port);
    server.closeAllConnections();
    server.close();
  },
  async 'verify ring'(dir) {
    process.chdir(dir);
    const { lines, wrong } = await verify('list');
    if (lines !== SUMMED || wrong.length > 0) throw new Error(`${lines} files, ${wrong.length} wrong`);
  },
  async 'verify node'(dir) {
    process.chdir(dir);
    const under = new Set<Promise<void>>();
    for await (const line of createInterface({ input: fs.createReadStream('list') })) {
      const one = fs.promises.readFile(line.slice(66)).then((bytes) => {
        if (createHash('sha256').update(bytes).digest('hex') !== line.slice(0, 64)) throw new Error(line);
        under.delete(one);
      });
      under.add(one);
      if (under.size === 64) await Promise.race(under);
    }
    await Promise.all(under);
  },
  async 'ship ring'(dir) {
    const names = logs(dir);
    let frames = 0;
    const shipper = new Shipper(names, async (bytes) => {
      frames += bytes.length;
    });
    await shipper.look();
    await turns(names, async () => {
      while ((await shipper.turn()) > 0);
    });
    shipper.close();
    if (frames === 0) throw new Error('nothing was shipped');
  },
  async 'ship node'(dir) {
    const names = logs(dir);
    const files = await Promise.all(names.map(async (name) => ({ name, handle: await fs.promises.open(name), offset: 0, rest: '' })));
    const buffers = names.map(() => Buffer.alloc(16 * 1024));
    let frames = 0;
    await turns(names, async () => {
      for (let bytes = 1; bytes > 0; ) {
        const sizes = await Promise.all(files.map(({ handle, offset }, i) => handle.read(buffers[i]!, 0, buffers[i]!.length, offset)));
        bytes = 0;
        let text = '';
        files.forEach((file, i) => {
          const size = sizes[i]!.bytesRead;
          file.offset += size;
          bytes += size;
          const lines = (file.rest + buffers[i]!.toString('latin1', 0, size)).split('\n');
          file.rest = lines.pop()!;
          for (const line of lines) text += `${path.basename(file.name)}\t${line}\n`;
        });
        frames += Buffer.from(text, 'latin1').length;
      }
    });
    await Promise.all(files.map(({ handle }) => handle.close()));
    if (frames === 0) throw new Error('nothing was shipped');
  },
};

const logs = (dir: string): string[] => Array.from({ length: LOGS }, (_, i) => path.join(dir, 'logs', String(i)));

/** Appends a line to every tenth log, and has all of them read; only reading counts. */
async function turns(names: string[], read: () => Promise<void>): Promise<void> {
  const total = { cpu: 0, wall: 0 };
  for (let turn = 0; turn < TURNS; turn++) {
    for (let i = turn % 10; i < names.length; i += 10) fs.appendFileSync(names[i]!, `line ${turn} of a log\n`);
    const { cpu, wall } = await spending(read);
    total.cpu += cpu;
    total.wall += wall;
  }
  counted = total;
}
/** What the work alone took, where a part of what ran was preparation. */
let counted: Spent | undefined;

async function spending(work: () => Promise<unknown>): Promise<Spent> {
  const before = process.cpuUsage();
  const start = performance.now();
  await work();
  const { user, system } = process.cpuUsage(before);
  return { cpu: (user + system) / 1000, wall: performance.now() - start };
}

/** Tells the parent the port, and returns when it has had enough. */
async function whileServing(port: number): Promise<void> {
  console.log(JSON.stringify({ port }));
  counted = await spending(() => once(process.stdin.resume(), 'end'));
}

/** Requests over connections that stay open, as many at once as there are connections. */
async function load(port: number): Promise<void> {
  let left = SERVED;
  const client = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const socket = net.connect(port, '127.0.0.1');
      let expected = 0;
      const next = (): void => {
        if (left-- <= 0) socket.end(resolve);
        else socket.write(`GET /${left % 100} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
      };
      let head = '';
      socket.on('connect', next).on('error', reject);
      socket.on('data', (bytes) => {
        let body = bytes.length;
        if (expected === 0) {
          head += bytes.toString('latin1');
          const end = head.indexOf('\r\n\r\n');
          if (end < 0) return;
          if (!head.startsWith('HTTP/1.1 200')) return reject(new Error(head));
          expected = Number(/content-length: (\d+)/i.exec(head)![1]);
          body = head.length - end - 4;
          head = '';
        }
        expected -= body;
        if (expected === 0) next();
      });
    });
  await Promise.all(Array.from({ length: CLIENTS }, client));
}

async function one(way: string, dir: string): Promise<Spent> {
  const child = spawn(process.execPath, [...process.execArgv, process.argv[1]!, '--way', way, dir], { stdio: ['pipe', 'pipe', 'inherit'] });
  let spent: Spent | undefined;
  let loaded: number | undefined;
  const ended = once(child, 'exit');
  for await (const line of createInterface({ input: child.stdout! })) {
    const said = JSON.parse(line) as { port: number } | Spent;
    if ('port' in said) {
      loaded = (await spending(() => load(said.port))).wall;
      child.stdin!.end();
    } else spent = { cpu: said.cpu, wall: loaded ?? said.wall };
  }
  const [status] = await ended;
  if (status !== 0 || !spent) throw new Error(`${way}: exit status ${status}`);
  return spent;
}

const middle = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

async function main(): Promise<void> {
  const [first, second, third] = process.argv.slice(2);
  if (first === '--way') {
    const all = await spending(() => ways[second!]!(third!));
    console.log(JSON.stringify(counted ?? all));
    return;
  }
  const rounds = Number(first ?? 5);
  const names = second === undefined ? ['server', 'verify', 'ship'] : [second];
  const dir = fs.mkdtempSync(path.join(fs.existsSync('/var/tmp') ? '/var/tmp' : os.tmpdir(), 'vioctl-examples-'));
  try {
    for (const folder of ['files', 'many', 'logs']) fs.mkdirSync(path.join(dir, folder));
    for (let i = 0; i < 100; i++) fs.writeFileSync(path.join(dir, 'files', String(i)), Buffer.alloc(4096, `${i} `));
    let list = '';
    for (let i = 0; i < SUMMED; i++) {
      const bytes = Buffer.alloc(4096, `${i} `);
      fs.writeFileSync(path.join(dir, 'many', String(i)), bytes);
      list += `${createHash('sha256').update(bytes).digest('hex')}  many/${i}\n`;
    }
    fs.writeFileSync(path.join(dir, 'list'), list);
    for (const what of names) {
      const spent: Record<'ring' | 'node', Spent[]> = { ring: [], node: [] };
      for (let round = 0; round < rounds; round++)
        for (const way of ['ring', 'node'] as const) {
          for (const name of logs(dir)) fs.writeFileSync(name, 'a log\n');
          spent[way].push(await one(`${what} ${way}`, dir));
        }
      for (const measure of ['cpu', 'wall'] as const) {
        const [ring, node] = [spent.ring, spent.node].map((runs) => runs.map((run) => run[measure])) as [number[], number[]];
        const ratios = node.map((value, i) => value / ring[i]!).sort((a, b) => a - b);
        const range = `${ratios[0]!.toFixed(1)} to ${ratios.at(-1)!.toFixed(1)}`;
        const times = `ring ${middle(ring).toFixed(0)} ms, node ${middle(node).toFixed(0)} ms`;
        console.log(`${what.padEnd(6)}  ${measure.padEnd(4)}  ${times}: ${middle(ratios).toFixed(1)} times (${range})`);
      }
    }
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
}

main().catch((err) => {
  console.error(err);
  process.exitCode = 1;
});
