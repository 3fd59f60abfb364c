import fc from 'fast-check';
import type { Aperture } from '../../../src/dma/aperture.js';
import { entryLimit } from '../../../src/dma/aperture.js';
import { plan } from '../../../src/dma/layout.js';
import { pack } from '../../../src/dma/packing.js';
import { parseSpecs } from '../../../src/dma/spec.js';
import { planProperty } from '../../support/plan-sets.js';

const PAGE = 4096n;

test('small sets: a plan exactly if there is one, without overlap, the same for every order', () => {
  fc.assert(planProperty, { numRuns: 400 });
});

test('a refusal says whether there is no layout or none was found, and measures the class that failed', () => {
  const refusal = (aperture: Aperture, ...texts: string[]) => {
    try {
      plan(aperture, parseSpecs(texts));
    } catch (err) {
      return err;
    }
    throw new Error('not refused');
  };
  const low: Aperture = { ranges: [{ start: 0n, end: (1n << 36n) - 1n }], reserved: [], pages: [PAGE], limit: entryLimit };
  expect(refusal(low, 'a=3G,below4g', 'b=2G,below4g')).toMatchObject({
    exit: 3,
    message: expect.stringMatching(/^mapping b: 2G do not fit below 4 GiB: 1G are free, .* in one piece; no layout exists$/),
    details: { proven: true, free: 2 ** 30, largest: 2 ** 30 - 65536 },
  });
  // Thirty holes for one item each, and thirty-one items: counting pages does not tell, and there are too many sets to try.
  const holes = Array.from({ length: 30 }, (_, i) => ({ start: i * 1000, end: i * 1000 + 100 }));
  const items = Array.from({ length: 31 }, (_, i) => ({ size: 51 + i, align: 1, limit: Number.POSITIVE_INFINITY }));
  expect(
    pack(
      holes,
      items,
      items.map(() => 1),
    ),
  ).toMatchObject({ places: undefined, proven: false });
});

test('large sets take no longer than their number', () => {
  const low: Aperture = { ranges: [{ start: 0n, end: (1n << 48n) - 1n }], reserved: [], pages: [PAGE, 512n * PAGE], limit: entryLimit };
  const specs = parseSpecs(Array.from({ length: 65_535 }, (_, i) => `m${i}=${4 * (1 + (i % 5))}K${i % 7 === 0 ? ',below4g' : ''}`));
  const { maps } = plan(low, specs);
  expect(new Set(maps.map(({ iova }) => iova)).size).toBe(65_535);
});
