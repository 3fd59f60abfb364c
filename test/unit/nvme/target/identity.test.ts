import { idsOf, namespaceIds, parseId, uuidText } from '../../../../src/nvme/target/identity.js';
import { parseSource } from '../../../../src/nvme/target/serve/config.js';

const uuid = '6ba7b810-9dad-11d1-80b4-00c04fd430c8';
const hex = '6ba7b8109dad11d180b400c04fd430c8';

test.each([
  ['uuid', uuid],
  ['uuid', uuid.toUpperCase()],
  ['uuid', hex],
  ['nguid', hex],
] as const)('%s=%s', (kind, text) => expect(parseId(kind, text)).toBe(hex));

test.each([
  ['uuid', undefined],
  ['uuid', ''],
  ['uuid', `{${uuid}}`],
  ['uuid', uuid.slice(1)],
  ['uuid', `6ba7b8109-dad-11d1-80b4-00c04fd430c8`],
  ['uuid', '0'.repeat(32)],
  ['nguid', uuid],
  ['nguid', hex.slice(2)],
  ['nguid', `${hex}00`],
  ['nguid', `x${hex.slice(1)}`],
  ['eui64', hex],
] as const)('%s=%s: wrong usage', (kind, text) => {
  expect(() => parseId(kind, text)).toThrow(expect.objectContaining({ exit: 2 }));
});

test('a given identifier is taken, and the others follow it and no longer the source', () => {
  const ids = (source: string, asked = {}) => {
    const { nguid, eui64, uuid: id } = idsOf('nqn.a', source, asked);
    return { nguid: nguid.toString('hex'), eui64: eui64.toString('hex'), uuid: uuidText(id) };
  };
  expect(idsOf('nqn.a', 'file 1')).toEqual(namespaceIds('nqn.a\0file 1'));
  const given = ids('file 1', { uuid: hex });
  expect(given.uuid).toBe(uuid);
  expect(ids('file 2', { uuid: hex })).toEqual(given); // a copy takes the place of the disk
  expect(idsOf('nqn.b', 'file 1', { uuid: hex }).nguid.toString('hex')).not.toBe(given.nguid);
  expect(given.nguid).not.toBe(ids('file 1').nguid);
  expect(ids('file 1', { nguid: hex })).toMatchObject({ nguid: hex });
  expect(ids('file 1', { nguid: hex, uuid: hex })).toMatchObject({ nguid: hex, uuid });
});

test('behind a source', () => {
  expect(parseSource(`/a,uuid=${uuid},nguid=${hex}`)).toEqual({ source: '/a', ids: { uuid: hex, nguid: hex } });
});
