import { refusesWriteBack } from '../../../src/dma/pinning.js';

test.each([
  ['6.1.0-50-amd64', false],
  ['6.4.16', false],
  ['6.5.0', true],
  ['6.12.9-test', true],
  ['7.2.13', true],
  ['5.10.0', false],
  [undefined, true],
  ['unknown', true],
])('kernel %s pins no writable mapping of files that are written back: %s', (release, refuses) => {
  expect(refusesWriteBack(release)).toBe(refuses);
});
