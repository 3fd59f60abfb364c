/**
 * Boards whose RAM is at fixed addresses, as QEMU's `info mtree` has them, with the addresses at which a block is seen again.
 */

export type Arch = 'x86' | 'aarch64' | 'arm' | 'riscv' | 'loongarch' | 'm68k' | 'openrisc' | 's390x' | 'ppc' | 'sparc' | 'mips' | 'avr';

const mebi = 1n << 20n;

/** RAM from `base` on; with a size of the first part, the rest lies at `high`. */
export interface Family {
  base: bigint;
  low?: (size: bigint) => bigint;
  high?: bigint;
}

/** A part of a block that guests see at one more address. */
export interface Mirror {
  block: string;
  address: bigint;
  from: bigint;
  length: bigint;
}

export interface Board {
  machines: RegExp;
  arch: Arch;
  /** block of the RAM, unless a memory backend has another name */
  ram: string;
  family: Family;
  /** other blocks of memory, by name */
  more?: Record<string, bigint>;
  /** by the size of the RAM and its block's name */
  mirrors?: (size: bigint, ram: string) => Mirror[];
}

/** The first part of the RAM in front of a hole. */
const first = (part: bigint) => (size: bigint) => (size < part ? size : part);
const at = (base: bigint): Family => ({ base });

/** The RAM once more behind itself, up to as much as the board has room for. */
const again = (block: string, size: bigint, room: bigint, base: bigint): Mirror[] =>
  size < room ? [{ block, address: base + size, from: 0n, length: room - size < size ? room - size : size }] : [];

/** BMCs of Aspeed: base of the RAM and of the SRAM. */
const aspeed = (machines: RegExp, base: bigint, sram: bigint): Board => ({
  machines,
  arch: 'arm',
  ram: 'ram',
  family: at(base),
  more: { 'aspeed.sram.0': sram },
});

const boards: Board[] = [
  aspeed(/^(palmetto-bmc|quanta-q71l-bmc|supermicrox11-bmc)$/, 0x40000000n, 0x1e720000n),
  aspeed(/^(ast2500-evb|fp5280g2-bmc|g220a-bmc|romulus-bmc|sonorapass-bmc|witherspoon-bmc|tiogapass-bmc)$/, 0x80000000n, 0x1e720000n),
  aspeed(/^(ast2600-evb|bletchley-bmc|fby35-bmc|fuji-bmc|qcom-.*|rainier-bmc|tacoma-bmc)$/, 0x80000000n, 0x10000000n),
  {
    machines: /^(npcm750-evb|kudo-bmc|mori-bmc|quanta-gbs-bmc|quanta-gsj)$/,
    arch: 'arm',
    ram: 'ram',
    family: at(0n),
    more: { ram2: 0xfffd0000n, ram3: 0xc0008000n },
  },
  {
    machines: /^(akita|borzoi|spitz|terrier|mainstone|z2)$/,
    arch: 'arm',
    ram: 'pxa270.sdram',
    family: at(0xa0000000n),
    more: { 'pxa270.internal': 0x5c000000n },
  },
  { machines: /^collie$/, arch: 'arm', ram: 'strongarm.sdram', family: at(0xc0000000n) },
  { machines: /^cubieboard$/, arch: 'arm', ram: 'cubieboard.ram', family: at(0x40000000n) },
  { machines: /^(highbank|midway)$/, arch: 'arm', ram: 'highbank.dram', family: at(0n), more: { 'highbank.sysram': 0xfff88000n } },
  {
    machines: /^imx25-pdk$/,
    arch: 'arm',
    ram: 'imx25.ram',
    family: { base: 0x80000000n, low: first(256n * mebi), high: 0x90000000n },
    more: { 'imx25.iram': 0x78000000n },
    mirrors: (size, ram) => [
      { block: 'imx25.iram', address: 0x78020000n, from: 0n, length: 0x20000n },
      ...again(ram, size, 512n * mebi, 0x80000000n),
    ],
  },
  {
    machines: /^integratorcp$/,
    arch: 'arm',
    ram: 'integrator.ram',
    family: at(0n),
    mirrors: (size, ram) => [{ block: ram, address: 0x80000000n, from: 0n, length: size }],
  },
  { machines: /^lm3s(811|6965)evb$/, arch: 'arm', ram: 'stellaris.sram', family: at(0x20000000n) },
  { machines: /^kzm$/, arch: 'arm', ram: 'kzm.ram', family: at(0x80000000n), more: { 'imx31.iram': 0x1fffc000n } },
  {
    machines: /^mcimx6ul-evk$/,
    arch: 'arm',
    ram: 'mcimx6ul-evk.ram',
    family: at(0x80000000n),
    more: { 'imx6ul.ocram': 0x900000n },
    mirrors: () => [{ block: 'imx6ul.ocram', address: 0x920000n, from: 0n, length: 0x20000n }],
  },
  { machines: /^mcimx7d-sabre$/, arch: 'arm', ram: 'mcimx7d-sabre.ram', family: at(0x80000000n) },
  {
    machines: /^sabrelite$/,
    arch: 'arm',
    ram: 'sabrelite.ram',
    family: at(0x10000000n),
    more: { 'imx6.ocram': 0x900000n },
    mirrors: () => [{ block: 'imx6.ocram', address: 0x940000n, from: 0n, length: 0x40000n }],
  },
  { machines: /^musicpal$/, arch: 'arm', ram: 'musicpal.ram', family: at(0n), more: { 'musicpal.sram': 0xc0000000n } },
  { machines: /^(n800|n810)$/, arch: 'arm', ram: 'omap2.dram', family: at(0x80000000n), more: { 'omap2.sram': 0x40200000n } },
  {
    machines: /^(nuri|smdkc210)$/,
    arch: 'arm',
    ram: 'exynos4210.dram0',
    family: at(0x40000000n),
    more: { 'exynos4210.iram': 0x2020000n },
  },
  { machines: /^raspi/, arch: 'arm', ram: 'ram', family: at(0n) },
  { machines: /^realview-eb(-mpcore)?$/, arch: 'arm', ram: 'realview.highmem', family: at(0n), more: { 'realview.hack': 0xe0000000n } },
  {
    machines: /^realview-pb/,
    arch: 'arm',
    ram: 'realview.highmem',
    family: at(0x70000000n),
    more: { 'realview.lowmem': 0x20000000n, 'realview.hack': 0xe0000000n },
    mirrors: (size, ram) => [{ block: ram, address: 0n, from: 0n, length: first(256n * mebi)(size) }],
  },
  { machines: /^versatile(ab|pb)$/, arch: 'arm', ram: 'versatile.ram', family: at(0n) },
  {
    machines: /^vexpress-a9$/,
    arch: 'arm',
    ram: 'vexpress.highmem',
    family: at(0x60000000n),
    more: { 'vexpress.sram': 0x48000000n, 'vexpress.vram': 0x4c000000n },
  },
  {
    machines: /^vexpress-a15$/,
    arch: 'arm',
    ram: 'vexpress.highmem',
    family: at(0x80000000n),
    more: { 'vexpress.sram': 0x14000000n, 'vexpress.vram': 0x18000000n, 'vexpress.a15sram': 0x2e000000n },
  },
  { machines: /^xilinx-zynq-a9$/, arch: 'arm', ram: 'zynq.ext_ram', family: at(0n), more: { 'zynq.ocm_ram': 0xfffc0000n } },
  { machines: /^sbsa-ref$/, arch: 'aarch64', ram: 'sbsa-ref.ram', family: at(1n << 40n), more: { 'sbsa-ref.secure-ram': 0x20000000n } },
  {
    machines: /^xlnx-zcu102$/,
    arch: 'aarch64',
    ram: 'ddr-ram',
    family: { base: 0n, low: first(2048n * mebi), high: 0x800000000n },
    more: Object.fromEntries([0, 1, 2, 3].map((n) => [`zynqmp.ocm_ram_bank_${n}`, 0xfffc0000n + BigInt(n) * 0x10000n])),
  },
  { machines: /^g3beige$/, arch: 'ppc', ram: 'ppc_heathrow.ram', family: at(0n) },
  { machines: /^mac99$/, arch: 'ppc', ram: 'ppc_core99.ram', family: at(0n) },
  { machines: /^powernv\d*$/, arch: 'ppc', ram: 'pnv.ram', family: at(0n) },
  {
    machines: /^malta$/,
    arch: 'mips',
    ram: 'mips_malta.ram',
    family: { base: 0n, low: first(256n * mebi), high: 0x90000000n },
  },
  { machines: /^mipssim$/, arch: 'mips', ram: 'mips_mipssim.ram', family: at(0n) },
  { machines: /^(magnum|pica61)$/, arch: 'mips', ram: 'mips_jazz.ram', family: at(0n) },
  { machines: /^fuloong2e$/, arch: 'mips', ram: 'fuloong2e.ram', family: at(0n) },
  {
    machines: /^loongson3-virt$/,
    arch: 'mips',
    ram: 'loongson3.highram',
    family: { base: 0n, low: first(256n * mebi), high: 0x90000000n },
  },
  { machines: /^(SS-\d+(MP)?|LX|SPARC(Classic|book)|Voyager)$/, arch: 'sparc', ram: 'sun4m.ram', family: at(0n) },
  { machines: /^leon3_generic$/, arch: 'sparc', ram: 'leon3.ram', family: at(0x40000000n) },
  { machines: /^sun4[uv]$/, arch: 'sparc', ram: 'sun4u.ram', family: at(0n) },
];

/** The board of this machine type. */
export const boardOf = (machine: string): Board | undefined => boards.find((b) => b.machines.test(machine));
