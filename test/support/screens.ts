/** Screens of important commands on terminals of 40, 80 and 120 columns, and as pictures. The texts and pictures are in docs/screens. */
import { runExamples } from './examples.js';

export const widths = [40, 80, 120] as const;

/** Name of the file, and the command that appears on the screen. */
export const screens: readonly (readonly [name: string, command: string])[] = [
  ['vioctl-help', 'vioctl --help'],
  ['vfio-list', 'vioctl vfio list'],
  ['vfio-show', 'vioctl vfio show 0000:01:00.0'],
  ['dma-plan', 'vioctl dma plan --reserved reserved --aw 48 rings=64K,below4g data=1G,align=2M'],
  ['uring-sum-check', 'vioctl uring sum --check sums'],
  ['nvmf-discover', 'vioctl nvmf discover'],
  ['nvmf-ctl-list', 'vioctl nvmf ctl nvmf.sock list'],
  ['vhost-user-check', 'vioctl vhost-user check disk.sock --only SET_VRING'],
  ['migration-stat', 'vioctl migration stat guest.mig'],
  ['migration-verify', 'vioctl migration verify guest.mig'],
];

const fence = (info: string, ...lines: string[]): string =>
  [`\`\`\`console${info}`, ...lines.map((line) => `$ ${line}`), '```', ''].join('\n');

/** What the terminal received, by `name.width`. */
export function takeScreens(): Map<string, string> {
  const shots = screens.flatMap(([name, command]) => widths.map((width) => ({ key: `${name}.${width}`, command, width })));
  const document = [
    '<!-- host: sample -->',
    fence('', "printf '0xfee00000 0xfeefffff msi\\n' > reserved", 'truncate -s 16M disk.img'),
    fence('', 'mkdir tree; for i in 1 2 3; do echo $i > tree/$i; done; vioctl uring sum -r --ordered tree > sums; echo x > tree/2'),
    fence(' server', 'vioctl nvmf serve disk.img --nqn nqn.2026-01.org.example:disk --control nvmf.sock').replace(
      /\n```\n$/,
      '\nready\n```\n',
    ),
    fence(' server', 'vioctl vhost-user serve blk disk.sock=ram:16M').replace(/\n```\n$/, '\nready\n```\n'),
    ...shots.map(({ command, width }) => fence('', `script -qec 'stty cols ${width} rows 50; ${command}' /dev/null`)),
  ].join('\n');
  const outcomes = runExamples(document, 240_000).slice(-shots.length);
  return new Map(shots.map(({ key }, i) => [key, outcomes[i]!.output.replaceAll('\r', '').replace(/\/tmp\/[^/ ]*\/me\//g, '/home/me/')]));
}

const sgr = /\x1b\[([0-9;]*)m/g;

/** The text of a screen, without colours. */
export const plain = (screen: string): string => screen.replace(sgr, '').replace(/[ \t]+$/gm, '');

/** Colours of a dark terminal, by SGR number. */
const colors: Record<string, string> = {
  31: '#f38ba8',
  32: '#a6e3a1',
  33: '#f9e2af',
  34: '#89b4fa',
  35: '#cba6f7',
  36: '#94e2d5',
  90: '#7f849c',
};
const xml = (text: string): string => text.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c]!);

/** A screen as an SVG: one text element for each line, so that it can be searched and read aloud. */
export function svg(command: string, screen: string, columns: number): string {
  const [cell, line, margin] = [8.4, 18, 14];
  const lines = [`$ ${command}`, ...screen.replace(/\n$/, '').split('\n')];
  const [width, height] = [Math.ceil(columns * cell + 2 * margin), lines.length * line + 2 * margin];
  const spans = (text: string): string => {
    let style = '';
    let out = '';
    let at = 0;
    const put = (part: string) => {
      if (part !== '') out += style === '' ? xml(part) : `<tspan${style}>${xml(part)}</tspan>`;
    };
    for (const match of text.matchAll(sgr)) {
      put(text.slice(at, match.index));
      at = match.index + match[0].length;
      for (const code of (match[1] || '0').split(';')) {
        if (code === '0' || code === '39' || code === '22') style = '';
        else if (code === '1') style += ' font-weight="bold"';
        else if (colors[code]) style += ` fill="${colors[code]}"`;
      }
    }
    put(text.slice(at));
    return out;
  };
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" role="img" aria-label="${xml(command)}">`,
    `<rect width="100%" height="100%" rx="8" fill="#1e1e2e"/>`,
    `<g fill="#cdd6f4" font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14" xml:space="preserve">`,
    ...lines.map((text, i) => `<text x="${margin}" y="${margin + (i + 0.8) * line}">${spans(text)}</text>`),
    '</g>',
    '</svg>',
    '',
  ].join('\n');
}
