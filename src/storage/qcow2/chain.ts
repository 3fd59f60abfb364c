import fs from 'node:fs';
import path from 'node:path';
import { Exit, VioError, wrap } from '../../common/errors.js';
import { printable, shellFile } from '../../common/escape.js';
import { headerBytes, parseHeader } from './header.js';

/** One file of a chain. It stays open: the daemon gets this very file, whatever its name leads to by then. */
export interface Layer {
  readonly file: string;
  readonly fd: number;
  readonly format: 'qcow2' | 'raw';
  /** The file with the data of a qcow2 layer, if that is another one. */
  readonly data: { readonly file: string; readonly fd: number } | undefined;
}

/** Layers of a chain at most, the image included. */
const maxLayers = 32;

const refuse = (image: string, why: string, hint?: string): VioError =>
  new VioError(`${printable(image)}: ${why}`, { code: 'BACKING', exit: Exit.refused, hint });

/** Whether QEMU would take a name for a protocol or a json: description. */
const isProtocol = (name: string): boolean => /^[^/]*:/.test(name);

/**
 * Opens an image and the files that it builds on. Those must lie below `folder`, and are never anything but plain files.
 * @throws VioError: 3 for a file that is not permitted, 5 for a damaged header, else the system's error; then nothing is open
 */
export function openChain(image: string, readonly: boolean, folder: string | undefined): Layer[] {
  const layers: Layer[] = [];
  try {
    const below = folder === undefined ? undefined : fs.realpathSync(folder);
    let next: { file: string; format: 'qcow2' | 'raw' } | undefined = { file: image, format: 'qcow2' };
    while (next) {
      if (layers.length === maxLayers) throw refuse(image, `its chain is longer than ${maxLayers} files`);
      const { file, format }: { file: string; format: 'qcow2' | 'raw' } = next;
      const fd = openLayer(file, readonly || layers.length > 0);
      layers.push({ file, fd, format, data: undefined });
      next = undefined;
      if (format === 'raw') break;
      const head = Buffer.alloc(headerBytes);
      const header = parseHeader(file, head.subarray(0, fs.readSync(fd, head, 0, headerBytes, 0)));
      if (header.dataFile !== undefined) {
        const data = permitted(file, header.dataFile, 'data file', below);
        layers[layers.length - 1] = { file, fd, format, data: { file: data, fd: openLayer(data, readonly || layers.length > 1) } };
      }
      if (!header.backing) break;
      const { format: backingFormat } = header.backing;
      if (backingFormat !== 'raw' && backingFormat !== 'qcow2')
        throw refuse(
          file,
          backingFormat === undefined
            ? 'it does not say what format its backing file has'
            : `a backing file of the format ${printable(backingFormat)}`,
          `qemu-img rebase -u -b ${shellFile(header.backing.file)} -F qcow2 ${shellFile(file)}`,
        );
      next = { file: permitted(file, header.backing.file, 'backing file', below), format: backingFormat };
    }
    return layers;
  } catch (err) {
    closeChain(layers);
    throw wrap(`open ${printable(image)}`, err);
  }
}

export function closeChain(layers: readonly Layer[]): void {
  for (const { fd, data } of layers) {
    fs.closeSync(fd);
    if (data) fs.closeSync(data.fd);
  }
}

/** Never waits for a pipe, and opens no device or socket. */
function openLayer(file: string, readonly: boolean): number {
  const { O_RDONLY, O_RDWR, O_NONBLOCK, O_NOCTTY } = fs.constants;
  const fd = fs.openSync(file, (readonly ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_NOCTTY);
  if (fs.fstatSync(fd).isFile()) return fd;
  fs.closeSync(fd);
  throw refuse(file, 'it is no regular file');
}

/** The path that a name in a header leads to. @throws VioError (3) unless it lies below the folder */
function permitted(image: string, name: string, what: string, below: string | undefined): string {
  const named = `${what} ${printable(name)}`;
  if (name === '') throw refuse(image, `it names no ${what}`);
  if (isProtocol(name)) throw refuse(image, `${named}: only plain files are opened`);
  const at = path.resolve(path.dirname(image), name);
  if (below === undefined) throw refuse(image, `it needs the ${named}, and no backing=DIR permits one`);
  let real: string;
  try {
    real = fs.realpathSync(at);
  } catch (err) {
    // what is not permitted is not looked for either: whether it exists is nobody's business
    if (path.relative(below, at).startsWith('..')) throw refuse(image, `${named} does not lie below ${printable(below)}`);
    throw wrap(`${printable(image)}: ${named}`, err);
  }
  const rest = path.relative(below, real);
  if (rest === '' || rest === '..' || rest.startsWith('../') || path.isAbsolute(rest))
    throw refuse(image, `${named} does not lie below ${printable(below)}`);
  return real;
}
