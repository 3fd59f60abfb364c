import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { compileSanitized } from '../support/compile.js';

/** A bounded slice of test/support/programs/ring-fuzz.cc: rings, in-flight regions and dirty log under attack, with the sanitizers. */
test('random rings, regions and chains: nothing outside of the mappings, every end has a reason', () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-ring-fuzz-'));
  const sources = [
    'test/support/programs/ring-fuzz.cc',
    ...['virtqueue', 'split_queue', 'packed_queue', 'inflight', 'dirty_log', 'memory'].map((name) => `native/vhost_user/${name}.cc`),
    ...['os/mapping', 'os/bus_guard', 'common/error'].map((name) => `native/${name}.cc`),
  ];
  try {
    const out = compileSanitized(sources, path.join(dir, 'ring-fuzz'));
    expect(execFileSync(out, ['3', '1'], { encoding: 'utf8' })).toMatch(/^\d{2,} rounds, \d{3,} starts/);
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
});
