/** What ARCHITECTURE.md and CONTRIBUTING.md name must exist: paths, files, and the packages of package.json. */
import fs from 'node:fs';
import path from 'node:path';

const root = path.resolve(__dirname, '..', '..');
const documents = ['ARCHITECTURE.md', 'CONTRIBUTING.md'];
const folders = ['src', 'native', 'test', 'scripts'];
const read = (file: string): string => fs.readFileSync(path.join(root, file), 'utf8');

/** Files and folders of the tree, relative to the root. Files of the other folders count for bare names. */
const below = (folder: string): string[] =>
  (fs.readdirSync(path.join(root, folder), { recursive: true }) as string[]).map((name) => `${folder}/${name}`);
const tree = [...folders, ...folders.flatMap(below), ...['bin', 'include', '.ci'].flatMap(below)];

/** A name as the documents write it: `<domain>` and `*` stand for any part of a name. */
const pattern = (name: string): string =>
  name
    .replace(/\/$/, '')
    .split(/<[^>]*>|\*+/)
    .map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'))
    .join('[^/]+');

const exists = (name: string): boolean => {
  const whole = folders.some((folder) => name === folder || name.startsWith(`${folder}/`));
  const found = new RegExp(whole ? `^${pattern(name)}$` : `(^|/)${pattern(name)}$`);
  return tree.some((one) => found.test(one));
};

/** Paths below the folders of the code, and names of source files, anywhere in a text: also in its pictures. */
function namesIn(text: string): string[] {
  const paths = text.matchAll(/(?<![\w./<>~-])(?:src|native|test|scripts)\/[\w./<>*-]*[\w/>*]/g);
  const files = text.matchAll(/(?<![\w./<>*-])[\w*<>-][\w./<>*-]*\.(?:ts|cc|h|mjs|cjs|sh)\b(?![\w/])/g);
  return [...paths, ...files].map(([name]) => name);
}

/** Names that stand in code marks and look like folders: `stream/`. */
const foldersIn = (text: string): string[] => [...text.matchAll(/`([\w-]+\/)`/g)].map((match) => match[1]!);

test('names are found in sentences and pictures, and wrong ones do not exist', () => {
  const text = 'See `src/common/struct.ts` and src/nvme/wire.\n  worker.cc -> `native/<domain>/`, `nvme-*.ts`; (`wire/`)\n/usr/src/x.py';
  expect(namesIn(text).sort()).toEqual(
    ['nvme-*.ts', 'native/<domain>/', 'src/common/struct.ts', 'src/common/struct.ts', 'src/nvme/wire', 'worker.cc'].sort(),
  );
  expect(foldersIn(text)).toEqual(['wire/']);
  expect(
    ['src/nvme/wire', 'native/<domain>/', 'nvme-*.ts', 'wire/', 'struct.ts', 'common/struct.ts'].filter((name) => !exists(name)),
  ).toEqual([]);
  expect(['src/nvme/wires', 'src/struct.ts', 'native/<domain>/none.cc', 'nvm-*.ts', 'wir/', 'truct.ts'].filter(exists)).toEqual([]);
});

test.each(documents)('%s names only what exists', (document) => {
  const text = read(document);
  const names = [...namesIn(text), ...foldersIn(text)];
  expect(names.length).toBeGreaterThan(20);
  expect([...new Set(names)].filter((name) => !exists(name))).toEqual([]);
});

test('ARCHITECTURE.md gives the reason for each dependency, and for nothing else', () => {
  const rows = read('ARCHITECTURE.md')
    .split('\n## Dependencies')[1]!
    .matchAll(/^\| (?!package|-)([^|]+) \|/gm);
  const named = [...rows].flatMap((row) => row[1]!.split(', '));
  const { devDependencies } = JSON.parse(read('package.json')) as { devDependencies: Record<string, string> };
  expect(named.sort()).toEqual(Object.keys(devDependencies).sort());
});

test('pictures are no wider than 100 columns', () => {
  const pictures = [...read('ARCHITECTURE.md').matchAll(/^```\n(.*?)^```$/gms)].map((match) => match[1]!);
  expect(pictures.length).toBeGreaterThan(8);
  expect(pictures.flatMap((picture) => picture.split('\n').filter((line) => line.length > 100))).toEqual([]);
});
