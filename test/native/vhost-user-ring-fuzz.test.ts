import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/** A bounded slice of test/support/programs/ring-fuzz.cc: rings, in-flight regions and dirty log under attack, with the sanitizers. */
test('random rings, regions and chains: nothing outside of the mappings, every end has a reason', () => {
  const root = path.resolve(__dirname, '..', '..');
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-ring-fuzz-'));
  const sources = [
    'test/support/programs/ring-fuzz.cc',
    ...['virtqueue', 'split_queue', 'packed_queue', 'inflight', 'dirty_log', 'memory'].map((name) => `native/vhost_user/${name}.cc`),
    ...['os/mapping', 'os/bus_guard', 'common/error'].map((name) => `native/${name}.cc`),
  ];
  const flags = ['-std=c++20', '-O1', '-g', '-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-Inative', '-pthread'];
  const out = path.join(dir, 'ring-fuzz');
  try {
    execFileSync(process.env.CXX ?? 'g++', [...flags, '-o', out, ...sources], { cwd: root });
    expect(execFileSync(out, ['3', '1'], { encoding: 'utf8' })).toMatch(/^\d{2,} rounds, \d{3,} starts/);
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
}, 300_000);
