import { Args, Flags } from '../../cli/flags.js';
import { APIS } from '../../vfio/session/open.js';

/** The device of a command that takes one. */
export const deviceArg = Args.string({ required: true, description: 'PCI address: 0000:01:00.0 or 01:00.0' });

/** The devices of a command that takes several. */
export const devicesArg = Args.string({
  required: true,
  multiple: true,
  description: 'PCI addresses (0000:01:00.0 or 01:00.0), or - for a list on stdin',
});

/** Which of the kernel's two ways to open a device. */
export const apiFlag = Flags.option({
  options: APIS,
  default: 'auto',
  helpValue: 'API',
  summary: 'auto, group (container) or cdev (iommufd)',
})();

/** `--dry-run` of commands that write to sysfs. */
export const scriptFlag = Flags.boolean({ summary: 'print the exact writes as a shell script and change nothing' });

/** `--wait` of commands that need holders to let go. */
export const waitFlag = Flags.duration({ default: 10_000, summary: 'how long to wait for holders' });
