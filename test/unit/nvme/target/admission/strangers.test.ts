import { surplus } from '../../../../../src/nvme/target/admission/strangers.js';

test.each([
  ['nobody', [], undefined],
  ['one', ['a1'], 'a1'],
  ['the oldest of one address', ['a1', 'a2', 'a3'], 'a1'],
  ['the address with the most, not the oldest of all', ['b1', 'a1', 'a2', 'a3', 'c1'], 'a1'],
  ['the oldest, where none has more than others', ['c1', 'b1', 'a1'], 'c1'],
])('%s', (_what, strangers, goes) => {
  expect(surplus(strangers, (one) => one[0]!)).toBe(goes);
});
