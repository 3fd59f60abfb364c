import fs from 'node:fs';

/**
 * The root below which /sys, /proc, /dev and /run are read and written. `/` on a real system; tests pass a small tree
 * (VIOCTL_SYSROOT), so the same code runs on both.
 */
export class Sysroot {
  readonly root: string;

  constructor(root = '/') {
    this.root = root;
  }

  /** The real path of an absolute system path such as `/sys/bus/pci`. */
  path(absolute: string): string {
    // no normalising: of thousands of attributes it would be the larger part of the work
    return this.root === '/' ? absolute : `${this.root}${absolute}`;
  }

  /** The answer to a question about the system, which need not be asked again where answers are remembered. */
  once<T>(_question: string, ask: () => T): T {
    return ask();
  }

  exists(absolute: string): boolean {
    return fs.existsSync(this.path(absolute));
  }

  /** Contents of a file as text. @throws the system's error */
  read(absolute: string): string {
    return fs.readFileSync(this.path(absolute), 'utf8');
  }

  /** Contents without the trailing newline, or undefined where the file is absent or cannot be read. */
  attr(absolute: string): string | undefined {
    try {
      return this.read(absolute).replace(/\n+$/, '');
    } catch {
      return undefined;
    }
  }

  /** Writes a system attribute in one write(2), as sysfs wants it. @throws the system's error */
  write(absolute: string, value: string): void {
    const fd = fs.openSync(this.path(absolute), fs.constants.O_WRONLY);
    try {
      fs.writeSync(fd, value);
    } finally {
      fs.closeSync(fd);
    }
  }

  /** Entries of a folder, sorted; empty where it does not exist. */
  list(absolute: string): string[] {
    try {
      return fs.readdirSync(this.path(absolute)).sort();
    } catch {
      return [];
    }
  }

  /** An absolute path with its symbolic links resolved; as given where it does not exist or leads out of the root. */
  realpath(absolute: string): string {
    try {
      const real = fs.realpathSync(this.path(absolute));
      if (this.root === '/') return real;
      const base = fs.realpathSync(this.root);
      return real.startsWith(`${base}/`) ? real.slice(base.length) : absolute;
    } catch {
      return absolute;
    }
  }

  /** Target of a symbolic link as written, or undefined. */
  readlink(absolute: string): string | undefined {
    try {
      return fs.readlinkSync(this.path(absolute));
    } catch {
      return undefined;
    }
  }
}

/** A system that is asked each question once: for a look at many things that are to be of one moment. */
export class RememberedSysroot extends Sysroot {
  readonly #answers = new Map<string, unknown>();

  override once<T>(question: string, ask: () => T): T {
    if (!this.#answers.has(question)) this.#answers.set(question, ask());
    return this.#answers.get(question) as T;
  }

  override exists(absolute: string): boolean {
    return this.once(`exists ${absolute}`, () => super.exists(absolute));
  }

  override attr(absolute: string): string | undefined {
    return this.once(`attr ${absolute}`, () => super.attr(absolute));
  }

  override list(absolute: string): string[] {
    return this.once(`list ${absolute}`, () => super.list(absolute));
  }

  override readlink(absolute: string): string | undefined {
    return this.once(`readlink ${absolute}`, () => super.readlink(absolute));
  }
}
