// Runs a storage program in a guest and gives its facts.
import { boot, type GuestOptions, type KernelName } from '../lab.js';
import { program } from '../program.js';

/** Facts by name, as the lines of a guest's output tell them. */
export const factsOf = (stdout: string): Record<string, unknown> =>
  Object.fromEntries([...stdout.matchAll(/^FACT (.*)$/gm)].map((match) => JSON.parse(match[1]!) as [string, unknown]));

/** What a guest needs to run the program test/vm/storage/NAME.ts. */
export const storageGuest = (name: string, part?: string): Pick<GuestOptions, 'files' | 'cmd' | 'memory' | 'smp' | 'env'> => ({
  files: { '/lab/program.cjs': program(`storage/${name}.ts`) },
  cmd: 'node /lab/program.cjs',
  memory: 2048,
  smp: 2, // servers, and who uses them
  env: part === undefined ? {} : { PART: part },
});

/** Runs the program to its end. @throws Error with all output if it fails */
export async function storageFacts(name: string, part?: string, kernel: KernelName = '6.12'): Promise<Record<string, unknown>> {
  const result = await boot({ kernel, ...storageGuest(name, part), timeout: 420 });
  if (result.status !== 0) throw new Error(`status ${result.status}\n${result.stdout}\n${result.stderr}\n${result.console}`);
  console.log(`${[name, part, kernel].filter(Boolean).join(' ')}: ${result.seconds.toFixed(0)} s`);
  return factsOf(result.stdout);
}
