import { Command } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { type Holder, listInstalled, listSockets, type SocketRow } from '../../vhost-user/tools/list.js';
import { kernelSockets } from '../../vhost-user/wire/sockets.js';

const shown = (holders: Holder[]): string =>
  holders.map((h) => `${(h.exe ?? h.command.split(' ')[0] ?? '?').replace(/.*\//, '')}(${h.pid})`).join(' ');

export default class List extends Command {
  static override readonly description = `
Lists the UNIX sockets of this network namespace that are used for vhost-user: who serves each, who uses it, and the number of
connections. It reads only the kernel's socket list and the command lines of processes. It never connects, because a connection
can block a virtual machine or end a back-end.

With --installed it lists the back-end programs that packages have described for managers (vhost-user.json) instead.`;
  static readonly examples = [
    ['vioctl vhost-user list', 'list vhost-user sockets and their users'],
    ['vioctl vhost-user list --json | jq -r ".sockets[].socket"', 'their paths'],
  ] as const;
  static override readonly flags = {
    all: Flags.boolean({ char: 'a', summary: 'every named stream socket, also those that nothing connects with vhost-user' }),
    installed: Flags.boolean({ summary: 'back-end programs that are installed, from their vhost-user.json' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;
  static override readonly list = true;

  async run(): Promise<number> {
    const { flags } = await this.parse(List);
    if (flags.installed) {
      const columns = [
        { title: 'TYPE', value: (i: { type: string }) => i.type },
        { title: 'BINARY', value: (i: { binary: string }) => i.binary },
        { title: 'DESCRIPTION', value: (i: { description: string }) => i.description },
      ];
      await this.out.list(listInstalled(this.sysroot), columns as never, 'installed');
      return 0;
    }
    await this.out.list<SocketRow>(
      listSockets(this.sysroot, kernelSockets(this.sysroot), flags.all),
      [
        { title: 'SOCKET', priority: 9, min: 12, value: (r) => r.socket },
        { title: 'DEVICE', priority: 8, value: (r) => r.device },
        { title: 'SERVER', priority: 7, value: (r) => shown(r.servers) },
        { title: 'USER', priority: 6, value: (r) => shown(r.users) },
        { title: 'CONNECTIONS', value: (r) => r.connections, align: 'right' },
      ],
      'sockets',
    );
    return 0;
  }
}
