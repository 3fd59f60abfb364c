// Device presets for lab guests. Each is a function from the guest's private folder to QEMU arguments.

import { truncate, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import path from 'node:path';

/** What a preset may use while its arguments are made. */
export interface DeviceContext {
  /** The guest's private folder, removed after the run. */
  dir: string;
  /** A number that is new in this guest, for ids. */
  next(): number;
  /** Host ports of forwarded guest ports, filled by `network`. */
  ports: Map<number, number>;
}

/** What a preset adds to the guest. */
export interface DeviceArgs {
  args: string[];
  /** Kernel command line. */
  append?: string[];
  /** Guest memory in a memfd that other processes can map (vhost-user). */
  sharedMemory?: boolean;
  /** Bring up the virtio network interface. */
  net?: boolean;
  /** QEMU saves and restores the device's whole state, so that a guest with it may continue a saved machine. */
  saved?: boolean;
}

export type Device = (context: DeviceContext) => DeviceArgs | Promise<DeviceArgs>;

/** An Intel IOMMU with interrupt remapping, switched on in the kernel. */
export function iommu(options: { awBits?: 39 | 48 } = {}): Device {
  return () => ({
    args: ['-device', `intel-iommu,intremap=on,aw-bits=${options.awBits ?? 48}`],
    append: ['intel_iommu=on'],
    saved: true,
  });
}

/** A virtio IOMMU (kernels 6.12 and 7): no remapping of interrupts. Behind the devices of tests on the bus. */
export function virtioIommu(): Device {
  return () => ({ args: ['-device', 'virtio-iommu-pci,addr=0x1a,aw-bits=48'] });
}

/** The 1234:11e8 teaching device: DMA engine, INTx and MSI. Alone on the root bus, so alone in its IOMMU group. */
export function edu(): Device {
  return () => ({ args: ['-device', 'edu,dma_mask=0xffffffffffffffff'] });
}

/** A PCI test device (1b36:0005). */
export function pciTestdev(): Device {
  return () => ({ args: ['-device', 'pci-testdev'] });
}

/**
 * NVMe controllers, each on a root port of its own, with one namespace each: a sparse file in the guest's folder, or
 * `file`. Serial numbers are NV0, NV1, ... `port` has options of the root ports: with `x-speed=5` the kernel can reset the
 * bus below (it waits for the link of faster ports, which the emulation does not show).
 */
export function nvme(count = 1, options: { sizeMiB?: number; file?: string; extra?: string; port?: string } = {}): Device {
  return async (context) => {
    const args: string[] = [];
    for (let i = 0; i < count; i++) {
      const n = context.next();
      let file = options.file;
      if (!file) {
        file = path.join(context.dir, `nvme${n}.img`);
        await writeFile(file, '');
        await truncate(file, (options.sizeMiB ?? 64) * 2 ** 20);
      }
      const extra = options.extra ? `,${options.extra}` : '';
      const port = options.port ? `,${options.port}` : '';
      args.push('-drive', `file=${file},if=none,id=nv${n},format=raw,discard=unmap`);
      args.push('-device', `pcie-root-port,id=nvrp${n},chassis=${n},slot=${n + 64}${port}`);
      args.push('-device', `nvme,drive=nv${n},serial=NV${i},bus=nvrp${n}${extra}`);
    }
    return { args };
  };
}

/**
 * A conventional PCI bus behind a root port, with an e1000 and an edu on it: one IOMMU group of bridge and both. The kernel's
 * hot-plug driver complains about the bridge's slots (shpchp ... -16); that line is expected.
 */
export function bridge(): Device {
  return (context) => {
    const n = context.next();
    return {
      args: [
        ...['-device', `pcie-root-port,id=brp${n},chassis=${n},slot=${n + 64}`],
        ...['-device', `pcie-pci-bridge,id=br${n},bus=brp${n}`],
        ...['-netdev', `user,id=brn${n},restrict=on`],
        ...['-device', `e1000,bus=br${n},addr=1,netdev=brn${n},romfile=`],
        ...['-device', `edu,dma_mask=0xffffffffffffffff,bus=br${n},addr=2`],
      ],
    };
  };
}

/** An empty PCIe root port called `id`, to plug a device into through QMP. */
export function rootPort(id: string): Device {
  return (context) => {
    const n = context.next();
    return { args: ['-device', `pcie-root-port,id=${id},chassis=${n},slot=${n + 64}`], saved: true };
  };
}

/** A TCP port of 127.0.0.1 that is free now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done, failed) => server.once('error', failed).listen(0, '127.0.0.1', done));
  const address = server.address();
  await new Promise((done) => server.close(done));
  if (address === null || typeof address === 'string') throw new Error('no TCP port');
  return address.port;
}

/**
 * A virtio network interface, 10.0.2.15. In the guest 10.0.2.2:PORT is the host's 127.0.0.1:PORT. Guest ports in
 * `forward` are reachable on the host's loopback at the ports that `guest.ports` tells.
 */
export function network(options: { forward?: number[] } = {}): Device {
  return async (context) => {
    const n = context.next();
    let netdev = `user,id=net${n}`;
    for (const guest of options.forward ?? []) {
      const host = await freePort();
      context.ports.set(guest, host);
      netdev += `,hostfwd=tcp:127.0.0.1:${host}-10.0.2.15:${guest}`;
    }
    return { args: ['-netdev', netdev, '-device', `virtio-net-pci,netdev=net${n},romfile=`], net: true, saved: true };
  };
}

/** Guest memory that vhost-user back-ends can map, without a device of its own. */
export function sharedMemory(): Device {
  return () => ({ args: [], sharedMemory: true, saved: true });
}

/** A virtio disk served by the vhost-user-blk back-end that listens at `socket` on the host. */
/** @param options.reconnect keeps the guest going over an end of the back-end */
export function vhostUserBlk(socket: string, options: { queues?: number; packed?: boolean; reconnect?: boolean } = {}): Device {
  return (context) => {
    const n = context.next();
    return {
      args: [
        ...['-chardev', `socket,id=vub${n},path=${socket}${options.reconnect ? ',reconnect-ms=100' : ''}`],
        ...['-device', `vhost-user-blk-pci,chardev=vub${n},num-queues=${options.queues ?? 1}${options.packed ? ',packed=on' : ''}`],
      ],
      sharedMemory: true,
    };
  };
}

/** A shared folder served by the vhost-user-fs back-end (virtiofsd) at `socket`; `mount -t virtiofs TAG DIR` in the guest. */
export function vhostUserFs(socket: string, tag: string): Device {
  return (context) => {
    const n = context.next();
    const args = ['-chardev', `socket,id=vuf${n},path=${socket}`, '-device', `vhost-user-fs-pci,chardev=vuf${n},tag=${tag}`];
    return { args, sharedMemory: true };
  };
}
