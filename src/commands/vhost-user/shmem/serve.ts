import { Command } from '../../../cli/command.js';
import { Args, Flags } from '../../../cli/flags.js';
import { usage } from '../../../common/errors.js';
import { parseMap, parseRegion } from '../../../vhost-user/shmem/file.js';
import { pmemCapabilities, serveShmem } from '../../../vhost-user/shmem/serving.js';

export default class ShmemServe extends Command {
  static override readonly description =
    'Serves files in the VIRTIO shared memory regions of a virtual machine. It is a vhost-user back-end whose device has regions. ' +
    '`shmem map`, `unmap` and `list` change the mappings through its control socket while the guest runs.\n\nA mapping is sent when ' +
    "the guest's driver has started the device, and again after a reset. `:rw` shares the file itself. `:ro` shares a sealed private " +
    'copy, because front-ends map read-only requests writable. Only one server can share a file, once; copies of it can be mapped ' +
    'any number of times. After kill -9 the server can start again while the VMM still holds the file. There are at most three ' +
    'regions, whose sizes add up to a power of two. More than six mappings need --slots.\n\nWith --pmem the device is a virtio-pmem ' +
    'device with region 0 as its memory. The guest gets /dev/pmem0 with its own driver, and its flushes reach the files.';
  static readonly examples = [
    [
      'vioctl vhost-user shmem serve /run/w.sock --region 0=64M --map 0:0=/srv/data.img:rw --pmem',
      'with QEMU 11.1: -object memory-backend-memfd,id=m,size=1G,share=on -machine q35,memory-backend=m -chardev ' +
        'socket,id=c,path=/run/w.sock -device vhost-user-test-device-pci,chardev=c,virtio-id=27,num_vqs=1,config_size=16',
    ],
    ['vioctl vhost-user shmem serve /run/w.sock --region 0=1G --slots', 'an empty window; map into it later'],
  ] as const;
  static override readonly args = { socket: Args.string({ description: 'socket for the VMM' }) };
  static override readonly flags = {
    region: Flags.string({ multiple: true, helpValue: 'ID=SIZE', summary: 'a region of the device' }),
    map: Flags.string({ char: 'm', multiple: true, helpValue: 'ID:OFF=FILE[:rw|:ro]', summary: 'a file to map from the start' }),
    pmem: Flags.boolean({ summary: 'act as a virtio-pmem device with region 0 as its memory' }),
    control: Flags.string({ helpValue: 'PATH', summary: 'control socket [default: SOCKET.ctl]' }),
    slots: Flags.boolean({ summary: 'offer CONFIGURE_MEM_SLOTS, for more than six mappings' }),
    queues: Flags.integer({ min: 1, max: 256, default: 1, summary: 'virtqueues of the device' }),
    'config-size': Flags.integer({ min: 0, max: 256, default: 16, summary: 'bytes of its configuration space' }),
    'any-regions': Flags.boolean({ summary: 'announce regions that QEMU 11.1 does not take' }),
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
          this.out.document(ready, (r) => `serving ${r.socket ?? `fd ${flags.fd}`}${r.control ? `, control ${r.control}` : ''}`),
        onWarn: (text) => this.warn(text),
        onLog: (text) => this.info(text),
      },
      this.life.signal,
    );
    return 0;
  }
}
