import { Flags } from '../../cli/flags.js';
import { usage } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { parseSizeBig } from '../../common/units.js';
import type { InputOptions } from '../../migration/containers/input.js';
import type { ByteOrder } from '../../migration/memory/bitmap-order.js';

/** Flags of every command that reads a migration stream. */
export const inputFlags = {
  snapshot: Flags.string({ helpValue: 'ID', summary: 'qcow2: id or name of the internal snapshot' }),
  'max-size': Flags.size({ summary: 'limit of decompressed data [default: 1T]' }),
  offset: Flags.size({ summary: 'skip SIZE bytes before the stream' }),
  'bitmap-endian': Flags.option({
    options: ['little', 'big'] as const,
    helpValue: 'ORDER',
    summary: 'byte order of the host that wrote mapped-ram bitmaps: little or big [default: told from the pages]',
  })(),
};

/** What those flags say, as the domain takes it. */
export function inputOptions(flags: {
  offset?: number | undefined;
  snapshot?: string | undefined;
  'max-size'?: number | undefined;
  'bitmap-endian'?: ByteOrder | undefined;
}): InputOptions {
  return {
    ...(flags.offset !== undefined && { offset: flags.offset }),
    ...(flags.snapshot !== undefined && { snapshot: flags.snapshot }),
    ...(flags['max-size'] !== undefined && { maxSize: flags['max-size'] }),
    ...(flags['bitmap-endian'] !== undefined && { bitmapOrder: flags['bitmap-endian'] }),
  };
}

/** `0x100000000=md1` as an address and a block. @throws usage error */
export function placed(options: readonly string[]): { address: bigint; block: string }[] {
  return options.map((option) => {
    const at = option.indexOf('=');
    if (at < 1 || at === option.length - 1) throw usage(`--layout ${printable(option)}: expected ADDRESS=NAME`, '--layout 0x100000000=md1');
    return { address: parseSizeBig(option.slice(0, at)), block: option.slice(at + 1) };
  });
}
