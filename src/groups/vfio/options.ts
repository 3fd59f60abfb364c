import { Args, Flags } from '../../cli/flags.js';
import { collectList } from '../../cli/streams/input.js';
import type { Sysroot } from '../../common/sysroot.js';
import { checkNames } from '../../vfio/checks/finding.js';
import { expand } from '../../vfio/devices/select.js';
import { apis } from '../../vfio/session/open.js';
import { parseToken } from '../../vfio/session/token.js';

/** The device of a command that takes one. */
export const deviceArg = Args.string({ required: true, description: 'PCI address or selector, such as 01:00.0 or net:eth0' });

/** The devices of a command that takes several. */
export const devicesArg = Args.string({
  required: true,
  multiple: true,
  description: 'PCI addresses or selectors (01:00.0, net:eth0, class:nvme), or - for a list on stdin',
});

/** Which of the kernel's two ways to open a device. */
export const apiFlag = Flags.option({
  options: apis,
  default: 'auto',
  helpValue: 'API',
  summary: 'auto, group (container) or cdev (iommufd)',
})();

/** `--vf-token` of commands that open a device. */
export const tokenFlag = Flags.string({
  helpValue: 'UUID',
  parse: async (text) => parseToken(text),
  summary: 'VF token, for a device whose physical function is on VFIO',
});

/** `--dry-run` of commands that write to sysfs. */
export const scriptFlag = Flags.boolean({ summary: 'print the exact writes as a shell script and change nothing' });

/** `--wait` of commands that need holders to let go. */
export const waitFlag = Flags.duration({ default: 10_000, summary: 'how long to wait for holders' });

/** `--all` of commands that take selectors. */
export const allFlag = Flags.boolean({ summary: 'take every device that a selector matches, one by one' });

/**
 * The addresses that arguments name, `-` among them read from stdin: blanks around a line and empty lines mean nothing.
 * @throws VioError of expand()
 */
export async function deviceList(root: Sysroot, words: string[], options: { null: boolean; all?: boolean | undefined }): Promise<string[]> {
  const listed = await collectList(words, { null: options.null, orStdin: false });
  const names = options.null ? listed : listed.map((line) => line.trim()).filter((line) => line !== '');
  return expand(root, names, options.all);
}

/** `--allow` of commands with safety checks. */
export const allowFlag = Flags.option({ options: checkNames, multiple: true, summary: 'ignore this safety check', helpValue: 'CHECK' })();
