import { Flags } from './flags.js';

/** Flags of every command that reads a migration stream. */
export const inputFlags = {
  offset: Flags.size({ summary: 'the stream begins so many bytes into the file' }),
};

/** What those flags say, as the domain takes it. */
export function inputOptions(flags: { offset?: number | undefined }): { offset?: number } {
  return { ...(flags.offset !== undefined && { offset: flags.offset }) };
}
