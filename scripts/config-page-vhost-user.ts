// The words of vioctl-vhost-user(5).
import type { ConfigPage } from './config-page.js';

export const vhostUserPage: ConfigPage = {
  name: 'vioctl-vhost-user',
  summary: 'configuration file of vioctl vhost-user serve blk',
  samples: 'docs/samples/vhost-user',
  description: [
    'vioctl vhost-user serve blk --config FILE reads its disks from a file. SIGHUP reads the file again. vioctl vhost-user ctl save writes ' +
      'such a file, and load serves what one says.',
    'The file is JSON, or YAML if its name ends in .yaml or .yml. On standard input, text that begins with { is JSON. In YAML, numbers, ' +
      'true and false may be quoted. A key that is not listed here is an error. The server checks the whole file before it opens anything.',
    'The options --control, --state-dir, --engine and --incoming of the command line go with --config. The first three replace the same ' +
      'keys of the file. Relative paths of the file start in its folder.',
    'A socket that systemd passes (LISTEN_FDS) is used for the disk with its path. Its mode and owner are those of the socket unit.',
  ],
  reload: [
    'A reload compares the file with what is served now, changes made by vhost-user ctl included, and changes only what differs. A disk ' +
      'that stays the same goes on undisturbed. Limits change in place. A disk whose source or options change is removed and added again: ' +
      'the server finishes what the guest has asked for, and the VMM must connect again.',
    'New sources are tried before anything changes; if one of them cannot be served, the server goes on as before and says why. If a ' +
      'later step fails, the others are made all the same, and the log names the one that failed.',
    'The keys control, stateDir and engine need a restart. A reload with another value is rejected.',
    'vhost-user ctl load does the same with any file. It can open only what sources of the running server allows, and cannot change sources. ' +
      'What such a file does not say of queues and sockets, the command line of the server says.',
  ],
  file: ['/etc/vioctl/vhost-user/NAME.json', 'The file of vioctl-vhost-user@NAME.service.'],
  notes: [
    'The VMM must share its memory with the server: with QEMU, -object memory-backend-memfd,share=on.',
    'A disk belongs to one VMM at a time. The next one waits until it has gone.',
  ],
  seeAlso: ['vioctl-vhost-user-serve-blk(1)', 'vioctl-vhost-user-ctl(1)', 'systemd.socket(5)'],
};
