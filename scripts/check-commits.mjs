// Checks the messages of new commits against the rules of CONTRIBUTING.md: `check-commits.mjs [RANGE]`, by default all
// commits after the one at which the rules began. The history may be missing (a tarball, a shallow clone): then it says so.
import { spawnSync } from 'node:child_process';
import { pathToFileURL } from 'node:url';

const rulesBegan = '51d76bac151ae16187323458a74240c05b536952';
const subjectLimit = 60;
const bodyLimit = 100;

/** What is wrong with one message, as sentences; an empty list for a good one. */
export function faults(message) {
  const [subject = '', second = '', ...body] = message.trimEnd().split('\n');
  const found = [];
  if (subject.length > subjectLimit) found.push(`the subject has ${subject.length} characters, at most ${subjectLimit} are allowed`);
  if (!subject.includes(' ')) found.push('the subject does not say what the commit does');
  if (subject.endsWith('.')) found.push('the subject ends with a full stop');
  if (subject.includes(';')) found.push('the subject joins several changes with ";"');
  if (/^(fixup|squash|amend)!|\bWIP\b/.test(subject)) found.push('the commit is unfinished work');
  // A list of `area: ` is allowed in front; the first word behind it is an imperative verb.
  const [verb = ''] = subject.replace(/^(?:[\w./-]+(?:, [\w./-]+)*: )+/, '').split(' ');
  if (/^[A-Za-z]+(?:ed|ing)$/.test(verb) && !/^(?:embed|feed|need|seed|shed|speed|bring|string)$/i.test(verb)) {
    found.push(`the subject begins with "${verb}": use the imperative`);
  }
  if (second !== '') found.push('the line after the subject is not blank');
  for (const line of body) {
    if (line.length > bodyLimit && !/https?:\/\//.test(line))
      found.push(`a line of the body has ${line.length} characters, at most ${bodyLimit} are allowed`);
  }
  return found;
}

function git(...args) {
  return spawnSync('git', args, { encoding: 'utf8', maxBuffer: 64 << 20 });
}

function main(range) {
  if (range === undefined && git('cat-file', '-e', `${rulesBegan}^{commit}`).status !== 0) {
    console.error('check-commits: skipped, this checkout does not have the history');
    return 0;
  }
  const { status, stdout, stderr } = git('log', '--no-merges', '--format=%h%n%B%x00', range ?? `${rulesBegan}..HEAD`);
  if (status !== 0) {
    console.error(`check-commits: ${stderr.trim()}`);
    return 2;
  }
  let wrong = 0;
  for (const entry of stdout.split('\0')) {
    const [commit, ...lines] = entry.trimStart().split('\n');
    if (!commit) continue;
    for (const fault of faults(lines.join('\n'))) {
      wrong++;
      console.error(`${commit} ${lines[0]}\n  ${fault}`);
    }
  }
  return wrong > 0 ? 1 : 0;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) process.exitCode = main(process.argv[2]);
