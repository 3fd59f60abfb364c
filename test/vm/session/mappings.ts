// DMA mappings on real kernels: what is refused, by us or by the kernel, and that nothing is left of it.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { readReserved } from '../../../src/dma/aperture.js';
import { Mapper } from '../../../src/dma/mapper.js';
import { parseSpecs } from '../../../src/dma/spec.js';
import type { Session } from '../../../src/vfio/session/session.js';
import { BOTH, CDEV, EDU, failure, must, root, type SessionCase, vfio, withSession } from './harness.js';

const AT = 0x4000_0000n;

/** The errno that the kernel has for one mapping, or "mapped". */
function kernel(session: Session, iova: bigint, size: bigint, va: bigint, rights = 3n): string {
  const { error } = vfio.mapDma(session.handle, BigUint64Array.from([va, iova, size, rights]));
  return error === undefined ? 'mapped' : String((error as NodeJS.ErrnoException).code);
}

/** With four pages of memory for the kernel's own answers. */
async function withMemory<T>(work: (va: bigint, fd: number) => T | Promise<T>): Promise<T> {
  const memory = vfio.newMemory('case', 0x4000n, 0n, 0x1000n, 0n);
  try {
    const { va, fd } = vfio.memoryInfo(memory);
    return await work(va, fd);
  } finally {
    vfio.closeMemory(memory);
  }
}

const mapper = (session: Session) => new Mapper(session.handle, session.aperture(readReserved(root, session.bdf)));
const at = (iova: bigint) => `0x${iova.toString(16)}`;

/** After a refused mapping: its address is free again, nothing is locked, and the kernel has no entry more. */
function nothingLeft(session: Session, maps: Mapper, before: number, iova: bigint): void {
  assert.equal(maps.locked, 0);
  assert.equal(session.available(), before);
  assert.equal(maps.map(parseSpecs([`again=4K,iova=${at(iova)}`]))[0]!.iova, iova);
  maps.unmap('again');
}

export const mappings: SessionCase[] = [
  {
    name: 'an overlap names the mapping in the way; the kernel has EEXIST for it',
    apis: BOTH,
    run: (api) =>
      withSession(EDU, api, (session) => {
        const maps = mapper(session);
        maps.map(parseSpecs(['ring=64K,iova=0x40000000']));
        const refused = failure(() => maps.map(parseSpecs(['buf=64K,iova=0x4000f000'])));
        assert.deepEqual([refused.code, refused.exit, refused.details?.overlaps], ['EEXIST', 3, 'ring']);
        assert.match(refused.message, /mapping buf: 0x4000f000-0x4001efff overlaps mapping ring/);
        // somebody else's mapping in the same address space, which our table does not know
        return withMemory((va) => {
          assert.equal(kernel(session, AT + 0x10000n, 0x1000n, va), 'mapped');
          const foreign = failure(() => maps.map(parseSpecs([`buf=64K,iova=${at(AT + 0x10000n)}`])));
          assert.deepEqual([foreign.code, foreign.exit], ['EEXIST', 3]);
          assert.equal(maps.get('buf'), undefined);
          vfio.unmapDma(session.handle, AT + 0x10000n, 0x1000n);
          maps.map(parseSpecs([`buf=64K,iova=${at(AT + 0x10000n)}`]));
          maps.close();
          return [refused.message, foreign.message];
        });
      }),
  },
  {
    name: 'the MSI window, and beyond the last address: named; the kernel has EINVAL for them',
    apis: BOTH,
    run: (api) =>
      withSession(EDU, api, (session) =>
        withMemory((va) => {
          const maps = mapper(session);
          const before = session.available();
          const window = failure(() => maps.map(parseSpecs(['buf=64K,iova=0xfee00000'])));
          assert.deepEqual([window.code, window.exit], ['EADDRNOTAVAIL', 3]);
          assert.match(window.message, /runs into the reserved region \(msi\) 0xfee00000-0xfeefffff/);
          const across = failure(() => maps.map(parseSpecs(['buf=2M,iova=0xfed00000,align=1M'])));
          assert.match(across.message, /reserved region \(msi\)/);
          const beyond = failure(() => maps.map(parseSpecs(['buf=64K,iova=0x1000000000000'])));
          assert.deepEqual([beyond.code, beyond.exit], ['EADDRNOTAVAIL', 3]);
          assert.match(beyond.message, /beyond the IOMMU's last address 0xffffffffffff/);
          const answers = [
            kernel(session, 0xfee00000n, 0x1000n, va),
            kernel(session, 0xfedff000n, 0x2000n, va),
            kernel(session, 1n << 48n, 0x1000n, va),
          ];
          assert.deepEqual(answers, ['EINVAL', 'EINVAL', 'EINVAL']);
          nothingLeft(session, maps, before, AT);
          return [window.message, across.message, beyond.message];
        }),
      ),
  },
  {
    name: 'sizes and addresses that are no whole pages, and none at all',
    apis: BOTH,
    run: (api) =>
      withSession(EDU, api, (session) =>
        withMemory((va) => {
          const maps = mapper(session);
          const texts = ['buf=100', 'buf=64K,iova=0x40000800', 'buf=0'].map((spec) => {
            const refused = failure(() => maps.map(parseSpecs([spec])));
            assert.equal(refused.exit, 2, spec);
            return `${refused.message} (${refused.hint})`;
          });
          assert.match(texts[0]!, /100 is not a multiple of 4K.*buf=4096/);
          assert.match(texts[1]!, /0x40000800 is not aligned to a page of 4K/);
          const answers = [
            kernel(session, AT, 0n, va),
            kernel(session, AT, 100n, va),
            kernel(session, AT + 16n, 0x1000n, va),
            kernel(session, AT, 0x1000n, va + 16n),
          ];
          assert.deepEqual(answers, ['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL']);
          nothingLeft(session, maps, session.available(), AT);
          return texts;
        }),
      ),
  },
  {
    name: 'addresses that wrap around 2^64',
    apis: BOTH,
    run: (api) =>
      withSession(EDU, api, (session) =>
        withMemory((va) => {
          const maps = mapper(session);
          const refused = failure(() => maps.map(parseSpecs(['buf=8K,iova=0xfffffffffffff000'])));
          assert.deepEqual([refused.code, refused.exit], ['EOVERFLOW', 3]);
          const answer = kernel(session, 0xffff_ffff_ffff_f000n, 0x2000n, va);
          assert.match(answer, /^(EOVERFLOW|EINVAL)$/);
          nothingLeft(session, maps, session.available(), AT);
          return { message: refused.message, kernel: answer };
        }),
      ),
  },
  {
    name: 'a file that shrinks while it is mapped, and a file that may only be read',
    apis: BOTH,
    run: (api) =>
      withSession(EDU, api, (session) => {
        const maps = mapper(session);
        const before = session.available();
        const file = '/tmp/shrinking';
        fs.writeFileSync(file, Buffer.alloc(65536));
        const real = fs.statSync;
        // another program cuts the file just after we have looked at its size
        (fs as { statSync: unknown }).statSync = (...args: Parameters<typeof real>) => {
          const stat = real(...args);
          fs.truncateSync(file, 4096);
          return stat;
        };
        let hole: ReturnType<typeof failure>;
        try {
          hole = failure(() => maps.map(parseSpecs(['one=4K,iova=0x50000000', `fw=${file},iova=0x40000000`])));
        } finally {
          (fs as { statSync: unknown }).statSync = real;
        }
        assert.equal(hole.code, 'EFAULT');
        assert.match(hole.message, /mapping fw at 0x40000000-0x4000ffff: its memory has a hole/);
        nothingLeft(session, maps, before, AT);
        nothingLeft(session, maps, before, 0x5000_0000n); // the mapping before it went too
        must(
          'mkdir -p /tmp/ro && mount -t tmpfs none /tmp/ro && dd if=/dev/zero of=/tmp/ro/fw bs=4096 count=2 2>/dev/null && mount -o remount,ro /tmp/ro',
        );
        try {
          const readOnly = failure(() => maps.map(parseSpecs(['fw=/tmp/ro/fw'])));
          assert.deepEqual([readOnly.code, readOnly.hint], ['EROFS', 'the device may only read it: fw=/tmp/ro/fw,ro']);
          maps.map(parseSpecs(['fw=/tmp/ro/fw,ro']));
          // the kernel does not let a device write what we may only read
          assert.equal(kernel(session, AT, 0x2000n, maps.get('fw')!.va, 3n), 'EFAULT');
          maps.close();
          return { hole, readOnly };
        } finally {
          must('umount /tmp/ro');
        }
      }),
  },
  {
    name: 'huge pages: none are there, then they are, and the mapping has them',
    apis: BOTH,
    run: (api) =>
      withSession(EDU, api, (session) => {
        const maps = mapper(session);
        const pool = '/sys/kernel/mm/hugepages/hugepages-2048kB';
        const before = session.available();
        const none = failure(() => maps.map(parseSpecs(['ring=8M,huge=2M'])));
        assert.equal(none.code, 'ENOMEM');
        assert.match(none.message, /mapping ring: no hugepages of 2M/);
        assert.match(none.hint, /hugepages-2048kB\/nr_hugepages/);
        nothingLeft(session, maps, before, AT);
        fs.writeFileSync(`${pool}/nr_hugepages`, '4');
        try {
          const [ring] = maps.map(parseSpecs(['ring=8M,huge=2M']));
          assert.deepEqual([ring!.pageSize, ring!.iova % 0x200000n, ring!.va % 0x200000n], [0x200000, 0n, 0n]);
          assert.equal(fs.readFileSync(`${pool}/free_hugepages`, 'utf8'), '0\n');
          maps.close();
          assert.equal(fs.readFileSync(`${pool}/free_hugepages`, 'utf8'), '4\n');
          return none;
        } finally {
          fs.writeFileSync(`${pool}/nr_hugepages`, '0');
        }
      }),
  },
  {
    name: 'an unmap that the kernel refuses leaves the mapping in the table: status 8',
    apis: BOTH,
    run: (api) =>
      withSession(EDU, api, (session) => {
        const maps = mapper(session);
        const [ring] = maps.map(parseSpecs(['ring=64K,iova=0x40000000']));
        const part = failure(() => vfio.unmapDma(session.handle, AT, 0x1000n));
        assert.match(part.code, api === 'cdev' ? /^(ENOENT|EINVAL)$/ : /^EINVAL$/);
        // behind our back the range becomes part of a larger mapping, which an unmap of the range would split
        vfio.unmapDma(session.handle, AT, 0x10000n);
        const memory = vfio.newMemory('large', 0x20000n, 0n, 0x1000n, 0n);
        assert.equal(kernel(session, AT, 0x20000n, vfio.memoryInfo(memory).va), 'mapped');
        const refused = failure(() => maps.unmap('ring'));
        assert.equal(refused.exit, 8, refused.message);
        assert.match(refused.message, /unmap ring at 0x40000000: it stays mapped/);
        assert.deepEqual([maps.list().length, maps.locked, maps.get('ring')], [1, 65536, ring]);
        const again = failure(() => maps.map(parseSpecs(['buf=64K,iova=0x40000000'])));
        assert.equal(again.details?.overlaps, 'ring');
        vfio.unmapDma(session.handle, AT, 0x20000n);
        assert.equal(kernel(session, AT, 0x10000n, ring!.va), 'mapped');
        maps.unmap('ring');
        vfio.closeMemory(memory);
        return [part.code, refused.message];
      }),
  },
  {
    name: 'what the calls of iommufd refuse',
    apis: CDEV,
    run: (api) =>
      withSession(EDU, api, (session) =>
        withMemory((va) => {
          const answers = {
            window: kernel(session, 0xfee00000n, 0x1000n, va),
            beyond: kernel(session, 1n << 48n, 0x1000n, va),
            first: kernel(session, AT, 0x2000n, va),
            clash: kernel(session, AT + 0x1000n, 0x1000n, va),
            part: failure(() => vfio.unmapDma(session.handle, AT, 0x1000n)).code,
            hole: failure(() => vfio.unmapDma(session.handle, AT + 0x10000n, 0x1000n)).code,
            whole: vfio.unmapDma(session.handle, AT, 0x2000n),
          };
          assert.deepEqual(answers, {
            window: 'EINVAL',
            beyond: 'EINVAL',
            first: 'mapped',
            clash: 'EEXIST',
            part: 'ENOENT',
            hole: 'ENOENT',
            whole: 0x2000n,
          });
          return answers;
        }),
      ),
  },
];
