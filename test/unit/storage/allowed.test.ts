import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { checkAllowed } from '../../../src/storage/config/sources.js';
import { canonicalSource } from '../../../src/storage/uri.js';

let dir: string;
beforeEach(() => {
  dir = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-allowed-')));
  for (const folder of ['in', 'out']) fs.mkdirSync(path.join(dir, folder));
  for (const file of ['in/a', 'out/a', 'in/rbd:x']) fs.writeFileSync(path.join(dir, file), '');
  fs.symlinkSync('../out/a', path.join(dir, 'in/link'));
  fs.symlinkSync('in/a', path.join(dir, 'way'));
});
afterEach(() => fs.rmSync(dir, { recursive: true }));

const takes = (patterns: string[] | undefined, source: string): boolean => {
  const canonical = canonicalSource(source.replaceAll('DIR', dir), path.join(dir, 'in'));
  try {
    checkAllowed(
      patterns?.map((one) => one.replaceAll('DIR', dir)),
      { source: canonical },
    );
    return true;
  } catch (err) {
    expect(err).toMatchObject({ code: 'NOT_ALLOWED', exit: 3 });
    return false;
  }
};

test.each<[boolean, string[] | undefined, string]>([
  [true, undefined, 'rbd:pool/image'],
  [false, [], 'DIR/in/a'],
  // files by where they really are
  [true, ['DIR/in/*'], 'DIR/in/a'],
  [true, ['DIR/in/*'], 'DIR/way'],
  [false, ['DIR/in/*'], 'DIR/in/link'],
  [false, ['DIR/in/*'], 'DIR/in/../out/a'],
  [false, ['DIR/in/*'], 'qcow2:DIR/in/a'],
  // images by where their files really are
  [true, ['qcow2:DIR/in/*'], 'qcow2:DIR/in/a'],
  [true, ['qcow2:DIR/in/*'], 'qcow2:DIR/way'],
  [false, ['qcow2:DIR/in/*'], 'qcow2:DIR/in/link'],
  [false, ['qcow2:DIR/in/*'], 'qcow2:DIR/in/../out/a'],
  [false, ['qcow2:DIR/in/*'], 'DIR/in/a'],
  // a file that looks like another kind is a file
  [false, ['rbd:*'], './rbd:x'],
  [true, ['DIR/in/rbd:*'], './rbd:x'],
  // URIs and images of Ceph as they are written
  [true, ['rbd:pool/*'], 'rbd:pool/image'],
  [true, ['rbd:pool/*'], 'rbd:pool/image@snap'],
  [false, ['rbd:pool/*'], 'rbd:pool/space/image'],
  [false, ['rbd:pool/*'], 'rbd:pools/image'],
  [true, ['nbd://disks/*'], 'nbd://disks/a'],
  [false, ['nbd://disks/*'], 'nbd://disks@other/a'],
  [false, ['nbd://disks/*'], 'nbds://disks/a'],
  [true, ['nvme+tcp://far:4420/nqn.2014-08.org.example:x/*'], 'nvme+tcp://far:4420/nqn.2014-08.org.example:x/1'],
  [false, ['nvme+tcp://far:4420/nqn.2014-08.org.example:x/*'], 'nvme+tcp://far:4420/nqn.2014-08.org.example:y/1'],
])('%s: %j, %s', (expected, patterns, source) => expect(takes(patterns, source)).toBe(expected));
