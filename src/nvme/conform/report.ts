/** Results as TAP version 14 and JUnit XML. */
import { printable } from '../../common/escape.js';
import { tapPoint } from '../../common/tap.js';
import type { CaseResult } from './run.js';

/** The lines of one result in TAP; a difference carries a YAML block. */
export function tapLines(result: CaseResult, number: number): string {
  const { verdict, id, title, expected, got, spec, milliseconds } = result;
  const details = { expected: expected.join(' | '), got, spec, milliseconds };
  return tapPoint({ ok: verdict !== 'differs', name: `${id} ${title}`, skip: verdict === 'skipped' ? got : undefined, details }, number);
}

const xml = (text: string) =>
  printable(text).replace(/[&<>"']/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&apos;' })[c]!);

/** All results as one JUnit document. */
export function junit(results: readonly CaseResult[], target: string): string {
  const count = (verdict: CaseResult['verdict']) => results.filter((r) => r.verdict === verdict).length;
  const seconds = (ms: number) => (ms / 1000).toFixed(3);
  const total = results.reduce((sum, r) => sum + r.milliseconds, 0);
  const cases = results.map((r) => {
    const open = `  <testcase classname="nvmf.${r.id.slice(0, 2)}" name="${xml(`${r.id} ${r.title}`)}" time="${seconds(r.milliseconds)}"`;
    if (r.verdict === 'ok') return `${open}/>`;
    if (r.verdict === 'skipped') return `${open}><skipped message="${xml(r.got)}"/></testcase>`;
    return `${open}><failure message="${xml(r.got)}">expected: ${xml(r.expected.join(' | '))}\nspec: ${xml(r.spec)}</failure></testcase>`;
  });
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuite name="${xml(`vioctl nvmf conform ${target}`)}" tests="${results.length}" failures="${count('differs')}" skipped="${count('skipped')}" time="${seconds(total)}">`,
    ...cases,
    '</testsuite>',
  ].join('\n');
}
