import { Command, type Example, watchFlag } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { allRings, ringsOf } from '../../uring/host/processes.js';

export default class List extends Command {
  static override readonly description =
    'Lists the io_urings of running processes: size, registered files and buffers, pending requests, requests that wait in poll, and ' +
    'overflowed completions. It only reads /proc/PID/fdinfo, and neither attaches to nor stops a process. The processes of other ' +
    'users need root.';
  static readonly examples: readonly Example[] = [
    ['vioctl uring list', 'all rings of this machine'],
    ['vioctl uring list --pid $(pidof qemu-system-x86_64) --json', 'the rings of a VM'],
    ['vioctl uring list --watch=1s', 'what is pending, second by second'],
  ];
  static override readonly flags = {
    ...watchFlag,
    pid: Flags.integer({ min: 1, helpValue: 'PID', summary: 'only the rings of this process' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;
  static override readonly list = true;

  async run(): Promise<undefined> {
    const { flags } = await this.parse(List);
    await this.watch(flags.watch, () => this.#show(flags.pid));
  }

  async #show(pid: number | undefined): Promise<void> {
    const { rings, hidden } = pid === undefined ? allRings(this.sysroot) : { rings: ringsOf(this.sysroot, pid), hidden: 0 };
    await this.out.list(
      rings,
      [
        { title: 'PID', priority: 9, value: (r) => r.pid, align: 'right' },
        { title: 'COMMAND', priority: 8, value: (r) => r.command },
        { title: 'FD', priority: 7, value: (r) => r.fd, align: 'right' },
        { title: 'SQ', priority: 3, value: (r) => r.sqEntries, align: 'right' },
        { title: 'CQ', priority: 3, value: (r) => r.cqEntries, align: 'right' },
        { title: 'FILES', priority: 6, value: (r) => `${r.files.length}/${r.tableSize}`, align: 'right' },
        { title: 'BUFFERS', priority: 5, value: (r) => r.buffers.length, align: 'right' },
        { title: 'PENDING', priority: 5, value: (r) => `${r.sqPending}/${r.cqPending}`, align: 'right' },
        { title: 'POLLED', priority: 1, value: (r) => r.polled.length, align: 'right' },
        { title: 'OVERFLOW', priority: 4, value: (r) => r.overflow.length, align: 'right' },
        { title: 'SQPOLL', priority: 2, value: (r) => r.sqThread },
      ],
      'rings',
    );
    if (hidden > 0) this.warn(`${hidden} processes could not be looked at: run as root`);
  }
}
