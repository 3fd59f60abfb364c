/** Arrows point one way: which files may import what (ARCHITECTURE.md). */
import fs from 'node:fs';
import path from 'node:path';

const src = path.resolve(__dirname, '..', '..', 'src');
const files = (fs.readdirSync(src, { recursive: true }) as string[]).filter((file) => file.endsWith('.ts'));

/** What a text imports: modules by name, our own files as paths below src. */
function importsOf(file: string, text: string): string[] {
  const found = text.matchAll(
    /(?:^|[\s;])(?:import|export)\s(?:[^'";]*?\sfrom\s)?['"]([^'"]+)['"]|\b(?:import|require)\(\s*['"]([^'"]+)['"]/g,
  );
  return [...found].map((match) => {
    const name = (match[1] ?? match[2])!;
    return name.startsWith('.') ? path.join(path.dirname(file), name).replace(/\.js$/, '.ts') : name;
  });
}

const imports = new Map(files.map((file) => [file, importsOf(file, fs.readFileSync(path.join(src, file), 'utf8'))]));
/** Files with an import that `wrong` names, as `file > import`. */
const having = (wrong: (file: string, imported: string) => boolean): string[] =>
  [...imports].flatMap(([file, list]) => list.filter((one) => wrong(file, one)).map((one) => `${file} > ${one}`));
const under = (file: string, ...folders: string[]): boolean => folders.some((folder) => file.startsWith(`${folder}/`));

test('imports are seen in every form', () => {
  const forms = `import a from './a.js';\nimport { b,\n  c } from "../b.js";\nexport * from './c.js';\nimport './d.js';\nimport type { E } from './e.js';
const f = await import('./f.js'); const g = require('g'); import('./h.js').then();`;
  expect(importsOf('x/y.ts', forms)).toEqual(['x/a.ts', 'b.ts', 'x/c.ts', 'x/d.ts', 'x/e.ts', 'x/f.ts', 'g', 'x/h.ts']);
  expect([...imports.values()].flat().length).toBeGreaterThan(1000);
});

test('only cli/oclif.ts imports @oclif/core', () => {
  expect(having((_file, one) => one.startsWith('@oclif'))).toEqual(expect.arrayContaining([expect.stringMatching(/^cli\/oclif\.ts > /)]));
  expect(having((file, one) => one.startsWith('@oclif') && file !== 'cli/oclif.ts')).toEqual([]);
});

test('cli is imported by commands and their groups only, commands by the table of groups', () => {
  expect(
    having((file, one) => under(one, 'cli') && !under(file, 'cli', 'commands', 'groups') && !['main.ts', 'stock.ts'].includes(file)),
  ).toEqual([]);
  expect(having((file, one) => under(one, 'commands') && !/^groups\/[a-z-]+\.ts$/.test(file))).toEqual([]);
});

test('common is a leaf; native knows only common', () => {
  expect(having((file, one) => under(file, 'common') && !under(one, 'common') && /\.ts$/.test(one))).toEqual([]);
  expect(having((file, one) => under(file, 'native') && /\.ts$/.test(one) && !under(one, 'native', 'common'))).toEqual([]);
});

test('control knows only common and native', () => {
  expect(having((file, one) => under(file, 'control') && /\.ts$/.test(one) && !under(one, 'control', 'common', 'native'))).toEqual([]);
});

test('no import circle', () => {
  const circles: string[] = [];
  const state = new Map<string, 'open' | 'done'>();
  const visit = (file: string, way: string[]): void => {
    if (state.get(file) === 'done') return;
    if (state.get(file) === 'open') {
      circles.push([...way.slice(way.indexOf(file)), file].join(' > '));
      return;
    }
    state.set(file, 'open');
    for (const one of imports.get(file) ?? []) if (imports.has(one)) visit(one, [...way, file]);
    state.set(file, 'done');
  };
  for (const file of files) visit(file, []);
  expect(circles).toEqual([]);
});

test('exit statuses are named, not numbered', () => {
  const numbered = files.filter((file) => /\bexit: (?:[^,\n]*[?:] )?\d/.test(fs.readFileSync(path.join(src, file), 'utf8')));
  expect(numbered).toEqual([]);
});

test('a folder holds about a dozen files: more of them get rooms', () => {
  // A file for each verb, and one for each domain of the addon.
  const larger = ['src/commands/vfio', 'src/native'];
  const root = path.dirname(src);
  const folders = new Map<string, Set<string>>();
  for (const top of ['src', 'native'])
    for (const file of fs.readdirSync(path.join(root, top), { recursive: true }) as string[]) {
      if (!/\.(ts|cc|h)$/.test(file)) continue;
      const folder = path.join(top, path.dirname(file));
      // A header and its source are one thing.
      folders.set(folder, (folders.get(folder) ?? new Set()).add(path.parse(file).name));
    }
  expect(folders.size).toBeGreaterThan(60);
  expect([...folders].filter(([folder, { size }]) => size > 14 && !larger.includes(folder)).map(([folder]) => folder)).toEqual([]);
});
