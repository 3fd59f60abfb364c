import { unchangedLines } from '../../../src/control/view.js';

test.each([
  [{ would: ['limit a to iops=5', 'open \x1b'], changed: false }, ['would limit a to iops=5', 'would open \\x1b']],
  [{ would: [], changed: false }, ['nothing to do: already done']],
  [{ changed: false }, ['nothing to do: already done']],
  [{ changed: true }, undefined],
  [{}, undefined],
])('%j', (document, lines) => expect(unchangedLines(document)).toEqual(lines));
