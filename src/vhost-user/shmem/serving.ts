import { usage } from '../../common/errors.js';
import type { ControlServer } from '../../control/server.js';
import type { DeviceModel } from '../backend/model.js';
import { inheritedSocket, type ServeOptions, serveBackEnd, serveConnection } from '../backend/serving.js';
import type { BackEndSession } from '../backend/session.js';
import { Listener } from '../wire/listener.js';
import { serveControl } from './control.js';
import { pmemDevice, windowDevice } from './device.js';
import { type MapSpec, openForMap, prepareFile } from './file.js';
import { checkRegions, maxWithoutSlots, ShmemServer } from './server.js';

/** What a back-end program says of itself (docs/interop/vhost-user.json). */
export const pmemCapabilities = { type: 'pmem', features: [] } as const;

export interface ShmemServing {
  socket: string | undefined;
  fd: number | undefined;
  control: string | undefined;
  regions: { shmid: number; size: bigint }[];
  maps: MapSpec[];
  pmem: boolean;
  slots: boolean;
  queues: number;
  configSize: number;
  anyRegions: boolean;
  onReady: (ready: ShmemReady) => Promise<void>;
  onWarn: (text: string) => void;
  onLog: (text: string) => void;
}

/** Printed when everything listens. */
export interface ShmemReady {
  /** path of the vhost-user socket; absent with --fd */
  socket: string | undefined;
  /** path of the control socket */
  control: string | undefined;
  /** type of the device */
  device: string;
  /** regions with their sizes */
  regions: { id: number; size: bigint }[];
  /** mappings from --map */
  mappings: ReturnType<ShmemServer['list']>;
}

/** The whole of `shmem serve`: device, sockets, first mappings; until the signal. @throws VioError */
export async function serveShmem(options: ShmemServing, signal: AbortSignal): Promise<void> {
  const regions = new Map(options.regions.map((r) => [r.shmid, r.size]));
  if (regions.size !== options.regions.length) throw usage('a region is given twice');
  checkRegions(regions, options.anyRegions);
  if (options.pmem && !regions.has(0)) throw usage('--pmem needs region 0');
  const slots = options.slots || options.maps.length > maxWithoutSlots;
  if (slots) options.onWarn('memory slots are offered: QEMU 11.1 ends at the next start of a device that is reset while a mapping stands');
  const server = new ShmemServer(regions, options.onLog, slots);
  let listener: Listener | undefined;
  let control: ControlServer | undefined;
  try {
    for (const spec of options.maps) {
      const prepared = await prepareFile(openForMap(spec), spec.file, spec.mode);
      for (const warning of prepared.warnings) options.onWarn(warning);
      server.add(spec.shmid, spec.offset, spec.file, prepared);
    }
    const device: DeviceModel = options.pmem
      ? pmemDevice(server, { slots })
      : windowDevice(server, { queues: options.queues, slots, configSize: options.configSize });
    let session: BackEndSession | undefined;
    const serve: ServeOptions = {
      device,
      onLog: options.onLog,
      onSession: (current) => {
        session = current;
        server.attach(current);
        return {
          onRunning: (running) => server.running(running),
          onClose: () => {
            server.detach(current);
            session = undefined;
          },
        };
      },
    };
    if (options.socket !== undefined) listener = Listener.at(options.socket);
    if (options.control !== undefined)
      control = serveControl(options.control, {
        server,
        socket: options.socket ?? `fd ${options.fd}`,
        state: () => ({ connected: session !== undefined, running: session?.running ?? false }),
      });
    const inherited = listener ? undefined : inheritedSocket(options.fd!);
    await options.onReady({
      socket: options.socket,
      control: options.control,
      device: device.name,
      regions: [...regions].map(([id, size]) => ({ id, size })),
      mappings: server.list(),
    });
    if (listener) await serveBackEnd(listener, serve, signal);
    else await serveConnection(inherited!, serve, signal);
  } finally {
    control?.close();
    listener?.close();
    server.close();
  }
}
