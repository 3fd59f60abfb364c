/** `migration verify --against` with the JSON of -dump-vmstate: what it can tell, and that it says what it cannot. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { vioctl } from '../support/cli.js';
import * as m from '../support/migration.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-against-'));
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));
const put = (name: string, bytes: Buffer | string): string => {
  fs.writeFileSync(path.join(dir, name), bytes);
  return path.join(dir, name);
};

const MACHINE = 'pc-i440fx-10.0';
const type = (name: string, version: number, minimum = version, more: object = {}) => ({
  Name: name,
  version_id: version,
  minimum_version_id: minimum,
  Description: { name, version_id: version, minimum_version_id: minimum, Fields: [], ...more },
});
const vmstate = (machine: string | undefined, ...types: ReturnType<typeof type>[]): string =>
  JSON.stringify({ ...(machine && { vmschkmachine: { Name: machine } }), ...Object.fromEntries(types.map((t) => [t.Name, t])) });
const all = [type('timer', 1), type('cpu', 1)];

interface Judged {
  loads: boolean | null;
  obstacles: { path: string; message: string }[];
  compared: { sections: number; of: number };
  notes: string[];
}
function judge(destination: string, source: Buffer = m.sample()) {
  const args = ['migration', 'verify', put('source', source), '--against', put('destination', destination)];
  const text = vioctl(args);
  const { status, stdout, stderr } = vioctl([...args, '--json']);
  expect(text.status).toBe(status);
  return { status, stderr, text: text.stdout, against: (JSON.parse(stdout || '{}') as { against?: Judged }).against };
}

test('devices that it knows were compared, and the rest is named', () => {
  const { status, text, against } = judge(vmstate(MACHINE, ...all));
  expect(status).toBe(0);
  expect(against).toMatchObject({ loads: true, obstacles: [], compared: { sections: 2, of: 3 } });
  expect(against!.notes.join('\n')).toMatch(/has no state of their name: ram/);
  expect(against!.notes.join('\n')).toMatch(/RAM blocks.*were not compared/);
  expect(text).toContain('as far as could be compared');
});

test.each<[string, string, Buffer | undefined]>([
  ['the machine alone', vmstate(MACHINE), undefined],
  ['the machine, and devices that the stream has not', vmstate(MACHINE, type('floppy', 3)), undefined],
  ['devices of a stream that does not describe its own', vmstate(MACHINE, ...all), m.sample({ tail: m.eof })],
])('%s: that it loads is not said', (_what, destination, source) => {
  const { status, stderr, text, against } = judge(destination, source);
  expect({ status, loads: against!.loads, sections: against!.compared.sections }).toEqual({ status: 7, loads: null, sections: 0 });
  expect(stderr).toContain('NOT_COMPARED');
  expect(text).toContain('is not known: no device could be compared');
  expect(text).not.toMatch(/loads it(,|$)/m);
});

test.each<[string, string, string]>([
  ['another machine, whatever else is there', vmstate('pc-q35-10.0'), 'machine'],
  ['an older version', vmstate(MACHINE, type('timer', 0), type('cpu', 1)), 'timer'],
  ['a version that is no longer read', vmstate(MACHINE, type('timer', 1), type('cpu', 9, 2)), 'cpu'],
])('%s: named, status 4', (_what, destination, named) => {
  const { status, against } = judge(destination);
  expect({ status, loads: against!.loads, named: against!.obstacles.map((o) => o.path) }).toEqual({
    status: 4,
    loads: false,
    named: [named],
  });
});

test('a document that does not name its machine: said, and the devices are compared', () => {
  const { status, against } = judge(vmstate(undefined, ...all));
  expect({ status, loads: against!.loads }).toEqual({ status: 0, loads: true });
  expect(against!.notes[0]).toContain('the destination does not name its machine type');
});

const wrong = [
  '5',
  '{"name":5}',
  '{"name":"x","Subsections":5}',
  '{"name":"x","Subsections":[null]}',
  '{"name":"x","Fields":[null]}',
  '{"name":"x","Fields":{"length":3}}',
  '{"name":"x","Fields":[{"Description":[]}]}',
  `${'{"name":"x","Fields":[{"Description":'.repeat(100)}{}${'}]}'.repeat(100)}`,
].map((d) => `{"vmschkmachine":{"Name":"${MACHINE}"},"timer":{"Description":${d}}}`);
test.each([...wrong, '{}', '{"a":null}', '{"a":1,"b":[]}', '{"vmschkmachine":{"Name":7}}', '{', '{"vmschkmachine":'])(
  '%s is no description of a destination',
  (destination) => {
    const { status, stderr } = judge(destination);
    expect(status).toBe(2);
    expect(stderr).toMatch(/neither a migration stream nor the JSON of -dump-vmstate/);
  },
);

test('a destination that is not there', () => {
  const r = vioctl(['migration', 'verify', put('source', m.sample()), '--against', path.join(dir, 'nothing')]);
  expect(r).toMatchObject({ status: 1, stdout: '' });
  expect(r.stderr).toMatch(/nothing.*ENOENT/);
});

test('a stream of a destination whose devices are not described: said', () => {
  const args = ['migration', 'verify', put('source', m.sample()), '--against', put('destination', m.sample({ tail: m.eof })), '--json'];
  const { status, stdout } = vioctl(args);
  const { against } = JSON.parse(stdout) as { against: Judged };
  expect({ status, loads: against.loads, compared: against.compared }).toEqual({
    status: 0,
    loads: true,
    compared: { sections: 3, of: 3 },
  });
  expect(against.notes[0]).toContain('the stream of the destination does not describe its devices');
});
