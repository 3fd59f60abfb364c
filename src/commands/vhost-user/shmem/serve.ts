import { Command } from '../../../cli/command.js';
import { Args, Flags } from '../../../cli/flags.js';
import { usage } from '../../../common/errors.js';
import { printable } from '../../../common/escape.js';
import { parseMap, parseRegion } from '../../../vhost-user/shmem/file.js';
import { pmemCapabilities, serveShmem } from '../../../vhost-user/shmem/serving.js';

export default class ShmemServe extends Command {
  static override readonly description =
    'Maps files into the memory of a virtual machine. The command is a vhost-user back-end whose device has VIRTIO shared ' +
    "memory regions: parts of the guest's memory that the device fills. `shmem map`, `unmap` and `list` change and show the " +
    'mappings through the control socket while the guest runs.\n\nWith `:rw` the guest writes to the file itself; only one ' +
    'server can map a file that way, once. With `:ro` the guest gets a private copy, because front-ends map even read-only ' +
    "requests writable. A file can have any number of copies.\n\nThe server sends a mapping when the guest's driver has started " +
    'the device, and again after a reset. A server that was killed can start again while the VMM still has the file mapped. ' +
    'The device has up to three regions, whose sizes must add up to a power of two. More than six mappings need ' +
    "--slots.\n\nWith --pmem the device is a virtio-pmem device with region 0 as its memory. The guest's own driver makes it " +
    '/dev/pmem0, and its flushes reach the files.';
  static readonly examples = [
    [
      'vioctl vhost-user shmem serve /run/w.sock --region 0=64M --map 0:0=/srv/data.img:rw --pmem',
      'with QEMU 11.1: -object memory-backend-memfd,id=m,size=1G,share=on -machine q35,memory-backend=m -chardev ' +
        'socket,id=c,path=/run/w.sock -device vhost-user-test-device-pci,chardev=c,virtio-id=27,num_vqs=1,config_size=16',
    ],
    ['vioctl vhost-user shmem serve /run/w.sock --region 0=1G --slots', 'serve an empty region, to map files into later'],
  ] as const;
  static override readonly args = { socket: Args.string({ description: 'socket for the VMM' }) };
  static override readonly flags = {
    region: Flags.string({ multiple: true, helpValue: 'ID=SIZE', summary: 'add a region' }),
    map: Flags.string({ char: 'm', multiple: true, helpValue: 'ID:OFF=FILE[:rw|:ro]', summary: 'map FILE at offset OFF of region ID' }),
    pmem: Flags.boolean({ summary: 'act as a virtio-pmem device with region 0 as its memory' }),
    control: Flags.string({ helpValue: 'PATH', summary: 'control socket [default: SOCKET.ctl]' }),
    slots: Flags.boolean({ summary: 'offer CONFIGURE_MEM_SLOTS, for more than six mappings' }),
    queues: Flags.integer({ min: 1, max: 256, default: 1, summary: 'virtqueues of the device' }),
    'config-size': Flags.integer({ min: 0, max: 256, default: 16, summary: 'bytes of its configuration space' }),
    'any-regions': Flags.boolean({ summary: 'allow regions that QEMU 11.1 rejects' }),
    'socket-path': Flags.string({ helpValue: 'PATH', summary: 'the same as SOCKET, as the vhost-user conventions spell it' }),
    fd: Flags.integer({ min: 3, helpValue: 'FD', summary: 'use the connected socket FD instead of listening' }),
    'print-capabilities': Flags.boolean({ summary: 'print the capabilities of the back-end as JSON, and exit' }),
  };
  static override readonly server = true;

  async run(): Promise<number> {
    const { args, flags } = await this.parse(ShmemServe);
    if (flags['print-capabilities']) {
      await this.out.raw(`${JSON.stringify(pmemCapabilities)}\n`);
      return 0;
    }
    const socket = args.socket ?? flags['socket-path'];
    if ((socket === undefined) === (flags.fd === undefined)) throw usage('one of SOCKET, --socket-path and --fd is needed');
    await serveShmem(
      {
        socket,
        fd: flags.fd,
        control: flags.control ?? (socket === undefined ? undefined : `${socket}.ctl`),
        regions: (flags.region ?? []).map(parseRegion),
        maps: (flags.map ?? []).map(parseMap),
        pmem: flags.pmem,
        slots: flags.slots,
        queues: flags.queues,
        configSize: flags['config-size'],
        anyRegions: flags['any-regions'],
        onReady: (ready) =>
          this.out.document(ready, ({ socket, control }) => {
            const at = socket === undefined ? `fd ${flags.fd}` : printable(socket);
            return `serving ${at}${control ? `, control ${printable(control)}` : ''}`;
          }),
        onWarn: (text) => this.warn(text),
        onLog: (text) => this.info(text),
      },
      this.life.signal,
    );
    return 0;
  }
}
