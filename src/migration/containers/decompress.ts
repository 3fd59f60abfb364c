/**
 * Decompression between two descriptors: zstd in this process where Node has it, the others through the system's tools.
 * gzip is done in the addon (native/migration).
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { Exit, VioError } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { type Decompressor, hasZstd, zstd } from './zstd.js';

export type Tool = 'bzip2' | 'xz' | 'lzop' | 'zstd';

/** The Debian package of each tool, for the hint. */
const packages: Record<Tool, string> = { bzip2: 'bzip2', xz: 'xz-utils', lzop: 'lzop', zstd: 'zstd' };

/** What compressed data begins with. */
const magics: [format: Tool | 'gzip', bytes: number[]][] = [
  ['gzip', [0x1f, 0x8b, 0x08]],
  ['bzip2', [0x42, 0x5a, 0x68]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ['lzop', [0x89, 0x4c, 0x5a, 0x4f]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
];

/** The format of compressed data, by its first bytes. */
export function compressionOf(bytes: Buffer): Tool | 'gzip' | undefined {
  return magics.find(([, magic]) => magic.every((b, i) => bytes[i] === b))?.[0];
}

/** Starts to decompress a descriptor from its present position on. @throws VioError (7) when the tool for it is missing */
export function decompress(tool: Tool, fd: number): Decompressor {
  const [readEnd, writeEnd] = native().migration.pipe();
  if (tool === 'zstd' && hasZstd()) return zstd(fd, [readEnd, writeEnd]);
  const child = spawn(tool, ['-dc'], { stdio: [fd, writeEnd, 'pipe'] });
  fs.closeSync(writeEnd);
  child.on('error', () => {}); // a missing tool has no pid: reported below
  if (child.pid === undefined) {
    fs.closeSync(readEnd);
    throw new VioError(`the stream is compressed with ${tool}, and ${tool} is not installed`, {
      code: 'TOOL_MISSING',
      exit: Exit.unsupported,
      hint: `apt install ${packages[tool]}`,
    });
  }
  let said = '';
  child.stderr?.on('data', (text: Buffer) => {
    if (said.length < 1000) said += text.toString();
  });
  const ended = new Promise<string | undefined>((resolve) => {
    child.on('close', (code, signal) => {
      const content = code === 0 || signal === 'SIGPIPE';
      resolve(content ? undefined : `${tool} ended with ${signal ?? `status ${code}`}${said ? `: ${said.trim().split('\n')[0]}` : ''}`);
    });
  });
  return { fd: readEnd, ended };
}
