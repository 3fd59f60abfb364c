import { Exit, usage, VioError } from '../common/errors.js';
import { beginning, printable } from '../common/escape.js';
import { parseSizeBig, parseU64 } from '../common/units.js';

/** One mapping as the user asks for it: `NAME=SIZE|FILE[,ro][,huge=2M][,align=2M][,iova=0x…][,below4g][,temp]`. */
export interface MapSpec {
  name: string;
  /** Bytes of new memory; undefined where a file gives the size. */
  size: bigint | undefined;
  file: string | undefined;
  /** The device may read it only. */
  readOnly: boolean;
  /** Hugepages of this size. */
  huge: bigint | undefined;
  align: bigint | undefined;
  iova: bigint | undefined;
  below4G: boolean;
  temporary: boolean;
}

const validName = /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/;
/** Names that `vfio exec` gives a meaning of its own. */
const taken = new Set(['device', 'group', 'container', 'iommufd']);

const powerOfTwo = (value: bigint): boolean => value > 0n && (value & (value - 1n)) === 0n;

/**
 * Parses one mapping.
 * @throws VioError (usage) that names the part
 */
export function parseSpec(text: string): MapSpec {
  const at = text.indexOf('=');
  const name = at < 0 ? text : text.slice(0, at);
  if (at < 0 || !validName.test(name))
    throw usage(`not a mapping: "${printable(beginning(text))}"`, 'mappings are NAME=SIZE or NAME=FILE, such as buf=64M or fw=./fw.bin,ro');
  if (taken.has(name)) throw usage(`"${name}" cannot name a mapping: it names a descriptor of vfio exec`);
  // A doubled comma is a comma of the file's name; no argument has a NUL.
  const [source = '', ...options] = text
    .slice(at + 1)
    .replaceAll(',,', '\0')
    .split(',')
    .map((part) => part.replaceAll('\0', ','));
  if (source === '') throw usage(`mapping ${name}: no size and no file`, `${name}=64M or ${name}=FILE`);
  const isSize = /^(0x[0-9a-f]+|[0-9]+(\.[0-9]+)?([kmgtp](i?b)?)?)$/i.test(source);
  const spec: MapSpec = {
    name,
    size: isSize ? parseSizeBig(source) : undefined,
    file: isSize ? undefined : source,
    readOnly: false,
    huge: undefined,
    align: undefined,
    iova: undefined,
    below4G: false,
    temporary: false,
  };
  if (spec.size === 0n) throw usage(`mapping ${name}: size is 0`);
  for (const option of options) set(spec, option);
  if (spec.iova !== undefined && spec.temporary)
    throw usage(`mapping ${name}: iova= and temp exclude each other`, 'temporary mappings get their addresses from the top');
  if (spec.huge !== undefined && spec.file !== undefined)
    throw usage(`mapping ${name}: huge= is for new memory`, 'put the file on hugetlbfs instead');
  return spec;
}

function set(spec: MapSpec, option: string): void {
  const [key = '', value] = option.split('=', 2) as [string, string?];
  const bad = (what: string): never => {
    throw usage(`mapping ${spec.name}: ${what}`, 'options are ro, huge=2M, align=2M, iova=0x…, below4g, temp');
  };
  const power = (): bigint => {
    const size = parseSizeBig(value ?? bad(`${key} needs a size`));
    return powerOfTwo(size) ? size : bad(`${key}=${printable(value ?? '')} is not a power of two`);
  };
  if (value !== undefined && ['ro', 'below4g', 'temp'].includes(key)) bad(`${key} takes no value`);
  switch (key) {
    case 'ro':
      spec.readOnly = true;
      break;
    case 'below4g':
      spec.below4G = true;
      break;
    case 'temp':
      spec.temporary = true;
      break;
    case 'huge':
      spec.huge = power();
      break;
    case 'align':
      spec.align = power();
      break;
    case 'iova':
      spec.iova = parseU64(value ?? bad('iova needs an address'));
      break;
    default:
      bad(`unknown option "${printable(option)}"`);
  }
}

/** Parses all mappings of a command line. @throws VioError (usage), also where a name comes twice */
export function parseSpecs(texts: readonly string[]): MapSpec[] {
  const specs = texts.map(parseSpec);
  const seen = new Set<string>();
  for (const { name } of specs) {
    if (seen.has(name)) throw usage(`mapping ${name} is given twice`);
    seen.add(name);
  }
  return specs;
}

/** Error of a mapping that cannot have what it asks for (exit 3). */
export function refused(name: string, why: string, code: string, details: Record<string, unknown> = {}, hint?: string): VioError {
  return new VioError(`mapping ${name}: ${why}`, { code, exit: Exit.refused, hint, details: { name, ...details } });
}
