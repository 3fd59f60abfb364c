// A shell in a guest that runs one command after another, for tests in which the guest and this machine take turns.
import { type Guest, type GuestOptions, spawnGuest } from './lab.js';

/** Reads commands in base64, a line each, runs them in one shell, and says how each ended. Its variables are not those of commands. */
const loop = `
shell_step=0
while IFS= read -r shell_line; do
  printf %s "$shell_line" | base64 -d >/run/step
  . /run/step >/run/out 2>&1 </dev/null
  shell_status=$?
  cat /run/out
  echo "--- step $shell_step: $shell_status"
  shell_step=$((shell_step+1))
done
`;

export class GuestShell {
  readonly guest: Guest;
  #steps = 0;

  private constructor(guest: Guest) {
    this.guest = guest;
  }

  static async boot(options: Omit<GuestOptions, 'cmd'>): Promise<GuestShell> {
    return new GuestShell(await spawnGuest({ ...options, cmd: loop }));
  }

  /** Runs a script; variables and background jobs stay. @returns its status, and what it printed on both streams */
  async run(script: string, seconds = 200): Promise<{ status: number; output: string }> {
    const step = this.#steps++;
    const from = this.guest.stdout.length;
    this.guest.write(`${Buffer.from(script).toString('base64')}\n`);
    const end = await this.guest.line(new RegExp(`^--- step ${step}: \\d+$`), seconds);
    const printed = this.guest.stdout.slice(from);
    return { status: Number(end.split(' ').at(-1)), output: printed.slice(0, printed.indexOf(end)) };
  }

  /** The same for a script that must succeed; the kernel's messages come with the error. */
  async must(script: string, seconds?: number): Promise<string> {
    const { status, output } = await this.run(script, seconds);
    if (status === 0) return output;
    const { output: messages } = await this.run('dmesg | tail -8; cat /run/tlshd.log 2>/dev/null');
    throw new Error(`status ${status} of ${script}\n${output}--- kernel\n${messages}`);
  }

  /** Ends the shell and waits for the guest. */
  async end(): Promise<void> {
    this.guest.end();
    await this.guest.wait();
  }
}
