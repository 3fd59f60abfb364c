import { Command, type Example } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { allRings, ringsOf } from '../../uring/processes.js';

export default class List extends Command {
  static override readonly description =
    'Lists the io_urings of running processes: size, registered files and buffers, what is pending, requests that wait in poll, ' +
    'completions that did not fit. Reads /proc/PID/fdinfo; nothing is attached or stopped. Processes of others need root.';
  static readonly examples: readonly Example[] = [
    ['vioctl uring list', 'all rings of this machine'],
    ['vioctl uring list --pid $(pidof qemu-system-x86_64) --json', 'the rings of a VM'],
  ];
  static override readonly flags = {
    pid: Flags.integer({ min: 1, helpValue: 'PID', summary: 'only the rings of this process' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;

  async run(): Promise<undefined> {
    const { flags } = await this.parse(List);
    const { rings, hidden } = flags.pid === undefined ? allRings(this.sysroot) : { rings: ringsOf(this.sysroot, flags.pid), hidden: 0 };
    await this.out.list(
      rings,
      [
        { title: 'PID', value: (r) => r.pid, align: 'right' },
        { title: 'COMMAND', value: (r) => r.command },
        { title: 'FD', value: (r) => r.fd, align: 'right' },
        { title: 'SQ', value: (r) => r.sqEntries, align: 'right' },
        { title: 'CQ', value: (r) => r.cqEntries, align: 'right' },
        { title: 'FILES', value: (r) => `${r.files.length}/${r.tableSize}`, align: 'right' },
        { title: 'BUFFERS', value: (r) => r.buffers.length, align: 'right' },
        { title: 'PENDING', value: (r) => `${r.sqPending}/${r.cqPending}`, align: 'right' },
        { title: 'POLLED', value: (r) => r.polled.length, align: 'right' },
        { title: 'OVERFLOW', value: (r) => r.overflow.length, align: 'right' },
        { title: 'SQPOLL', value: (r) => r.sqThread },
      ],
      'rings',
    );
    if (hidden > 0) this.warn(`${hidden} processes could not be looked at: run as root`);
  }
}
