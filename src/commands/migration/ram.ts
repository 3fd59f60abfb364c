import { Command } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { partFile } from '../../cli/streams/part-file.js';
import { usage } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { inputFlags, inputOptions, placed } from '../../groups/migration/options.js';
import { extractedLines } from '../../groups/migration/views.js';
import { openInput } from '../../migration/containers/input.js';
import { extract, passes } from '../../migration/export/extract.js';
import { Target, writeAll } from '../../migration/export/target.js';
import { damaged, elsewhere, memoryElsewhere, notPlaced } from '../../migration/inspect/dump.js';
import { issueText } from '../../migration/stream/issues.js';

export default class MigrationRam extends Command {
  static override readonly description =
    'Writes the guest memory in a stream or save file to OUT. Without --block this is guest-physical memory. The ' +
    'formats:\n\nraw: each byte of memory is at the offset of its address. sparse: like raw, with holes where the memory is ' +
    "zero. elf: a core file like that of QEMU's dump-guest-memory, for gdb, crash and drgn, with physical addresses. It has " +
    'the registers of the CPUs (x86, Arm with SVE, PowerPC, s390x, RISC-V, LoongArch). It has the note VMCOREINFO, from the ' +
    'device vmcoreinfo or a search of the memory. If the architecture of the guest is unknown, the command exits with 7. ' +
    'lime: the format of LiME.\n\nThe command finds the address of each block in the guest: CMOS, chipset, ACPI tables, ' +
    'devices. Use --machine if the stream does not name its machine. If the address of a block is unknown, the command names ' +
    'the block and leaves it out. With raw and sparse it then exits with 7, unless --partial is given. --layout sets the ' +
    'address of a block.\n\nBetween 768 KiB and 1 MiB, OUT has the RAM or ROM that the guest of a PC reads there. Between 640 ' +
    'and 768 KiB it has the RAM behind the video memory, as in system management mode. Memory that a board maps at two ' +
    'addresses appears at both. --rom adds firmware whose address the machine fixes: the BIOS or flash of PCs, the flash of ' +
    'Arm and RISC-V `virt`. From a damaged stream the command writes the readable part, and exits with 5.';
  static readonly examples = [
    ['vioctl migration ram vm.mig -o vm.mem', 'write physical memory to a sparse file'],
    ['vioctl migration ram vm.save --as elf -o vm.core && gdb -c vm.core', 'look at registers and memory in a debugger'],
    ['vioctl migration ram vm.save --as elf -o vm.core && crash vmlinux vm.core', "debug the guest's kernel"],
    ['vioctl migration ram vm.mig --block 0000:00:02.0/vga.vram -o vram', 'write one block'],
    ['vioctl migration ram vm.mig --at 0x7c00 --len 512 -o - | xxd', 'print a few bytes'],
  ] as const;
  static override readonly args = { file: Args.string({ required: true, description: 'file, or - for stdin' }) };
  static override readonly flags = {
    ...inputFlags,
    output: Flags.string({ char: 'o', required: true, helpValue: 'OUT', summary: 'file to write, or - for stdout' }),
    physical: Flags.boolean({ exclusive: ['block'], summary: 'guest-physical memory (the default)' }),
    block: Flags.string({ helpValue: 'NAME', summary: 'only this RAM block' }),
    as: Flags.option({
      options: ['raw', 'sparse', 'elf', 'lime'] as const,
      default: 'sparse',
      helpValue: 'FORMAT',
      summary: 'raw, sparse, elf or lime',
    })(),
    at: Flags.u64({ helpValue: 'ADDRESS', summary: 'first address, or offset in the block' }),
    len: Flags.sizeBig({ summary: 'number of bytes' }),
    machine: Flags.string({ helpValue: 'TYPE', summary: 'machine type, if the stream names none or an unknown one' }),
    'ram-block': Flags.string({ multiple: true, helpValue: 'NAME', summary: 'name the blocks of the RAM in the order of their addresses' }),
    layout: Flags.string({ multiple: true, helpValue: 'ADDRESS=NAME', summary: 'place a block at this address' }),
    rom: Flags.boolean({ exclusive: ['block'], summary: 'write firmware in ROM and flash too' }),
    partial: Flags.boolean({ summary: 'succeed without blocks whose address is unknown' }),
    'below-4g': Flags.sizeBig({ summary: "size of the RAM below 4 GiB, if not the machine's default" }),
    force: Flags.boolean({ summary: 'continue even if the stream version is unknown' }),
  };

  async run(): Promise<number | undefined> {
    const { args, flags } = await this.parse(MigrationRam);
    const toStdout = flags.output === '-';
    if (toStdout && this.out.format === 'json') throw usage('--json and -o - both want stdout');
    const input = openInput(args.file, inputOptions(flags));
    const file = partFile(flags.output, this.life, { inputs: [args.file], mode: 0o600 });
    const target = new Target(file?.part ?? flags.output, args.file);
    this.life.release(() => target.close());
    const progress = this.progress('extract', input.size * passes(input, flags));
    const options = {
      as: flags.as,
      ...(flags.block !== undefined && { block: flags.block }),
      ...(flags.machine !== undefined && { machine: flags.machine }),
      ...(flags['ram-block'] && { ramBlocks: flags['ram-block'] }),
      ...(flags['below-4g'] !== undefined && { below4g: flags['below-4g'] }),
      rom: flags.rom ?? false,
      placed: placed(flags.layout ?? []),
      ...(flags.at !== undefined && { at: flags.at }),
      ...(flags.len !== undefined && { length: flags.len }),
      force: flags.force ?? false,
    };
    const done = await extract(input, target.fd, options, (position) => progress.to(position));
    if (target.spooled) {
      for (const bytes of target.pieces(done.size)) {
        if (toStdout) await this.out.raw(bytes);
        else writeAll(target.out, bytes, flags.output);
      }
    }
    file?.finish();
    progress.end();
    if (this.out.format === 'text') {
      for (const issue of done.issues) this.warn(issueText(issue));
      for (const line of toStdout ? [] : extractedLines(done, flags.output)) this.info(line);
    } else {
      await this.out.document({ file: args.file, output: flags.output, ...done }, () => '');
    }
    if (done.issues.some((i) => i.severity === 'error')) throw damaged(args.file, done.issues);
    if (elsewhere(done.missing ?? [])) throw memoryElsewhere(args.file, done.missing ?? []);
    // The ranges of a core say what it has; in an image of all addresses a gap looks like memory of zeros.
    const images = flags.as === 'raw' || flags.as === 'sparse';
    if (done.unplaced && images && !flags.partial) throw notPlaced(args.file, done.unplaced);
    for (const u of done.unplaced ?? []) this.warn(`${printable(u.block)} is left out: the stream does not tell its address`);
    if (!done.complete && !done.unplaced) throw damaged(args.file, done.issues);
    return 0;
  }
}
