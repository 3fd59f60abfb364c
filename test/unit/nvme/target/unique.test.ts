/** Two namespaces of a subsystem with one identifier. */
import { native } from '../../../../src/native/index.js';
import { Subsystem } from '../../../../src/nvme/target/subsystem.js';

const uuid = '6ba7b8109dad11d180b400c04fd430c8';
let subsystem: Subsystem;
const ram = (nsid: number, more: object = {}) => ({ source: 'ram:1048576', nsid, ...more });
beforeEach(() => {
  subsystem = new Subsystem(native().nvme, { nqn: 'nqn.2014-08.org.example:unique' });
});
afterEach(() => subsystem.close());

test.each([
  ['uuid', uuid],
  ['nguid', uuid],
  ['eui64', '0123456789abcdef'],
])('an identifier is taken while a namespace has it: %s', (kind, id) => {
  // the others are made from the first one that is given: a UUID of its own makes them differ
  const ids = (nsid: number) => ({ ids: { uuid: `${nsid}${uuid.slice(1)}`, [kind]: id } });
  subsystem.add(ram(1, ids(1)));
  subsystem.add(ram(2));
  const refused = expect.objectContaining({ code: 'EEXIST', exit: 3, message: expect.stringContaining(kind.toUpperCase()) });
  expect(() => subsystem.add(ram(3, ids(3)))).toThrow(refused);
  expect(subsystem.nsids()).toEqual([1, 2]);
  subsystem.release(subsystem.take(1)!);
  subsystem.add(ram(3, ids(3)));
  expect(() => subsystem.add(ram(1, ids(1)))).toThrow(refused);
});

test('of two namespaces that were forced to one source, the second still has its identifiers when the first is gone', () => {
  // memory is told apart by its number: the same number in two rounds has the same identifiers
  const first = subsystem.add(ram(1));
  const digits = first.ids.uuid.toString('hex');
  subsystem.take(1);
  const second = subsystem.add(ram(1));
  expect(second.ids.uuid.toString('hex')).toBe(digits);
  subsystem.adopt({ ...first, nsid: 2 });
  subsystem.release(subsystem.take(1)!);
  expect(() => subsystem.add(ram(1))).toThrow(expect.objectContaining({ code: 'EEXIST', message: expect.stringContaining('namespace 2') }));
});

test('thousands of namespaces come and go', () => {
  for (let nsid = 1; nsid <= 5000; nsid++) subsystem.add(ram(nsid));
  for (let nsid = 1; nsid <= 5000; nsid += 2) subsystem.release(subsystem.take(nsid)!);
  expect(subsystem.namespaces.size).toBe(2500);
  expect(subsystem.add({ source: 'ram:1048576' }).nsid).toBe(1);
});
