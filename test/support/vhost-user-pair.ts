import type { DeviceModel } from '../../src/vhost-user/backend/model.js';
import { BackEndSession } from '../../src/vhost-user/backend/session.js';
import { type BackEvent, BackService } from '../../src/vhost-user/frontend/back-service.js';
import { Window, type WindowOptions } from '../../src/vhost-user/frontend/window.js';
import { windowDevice } from '../../src/vhost-user/shmem/device.js';
import { ShmemRegions } from '../../src/vhost-user/shmem/regions.js';
import { ShmemServer } from '../../src/vhost-user/shmem/server.js';
import { protocolMask } from '../../src/vhost-user/wire/features.js';
import { pair, Raw } from './vhost-user.js';

export const SHMEM = protocolMask('MQ', 'REPLY_ACK', 'BACKEND_REQ', 'BACKEND_SEND_FD', 'CONFIG', 'RESET_DEVICE', 'SHMEM');

/** Our front-end's end of the back-end channel, and a raw back-end. */
export function frontService(options: { started?: boolean; protocol?: bigint; regions?: Map<number, bigint> } = {}) {
  const [ours, theirs] = pair();
  const regions = new ShmemRegions(options.regions ?? new Map([[0, 0x100000n]]));
  const events: BackEvent[] = [];
  const log: string[] = [];
  const service = new BackService(ours, {
    regions,
    protocol: options.protocol ?? SHMEM,
    started: () => options.started ?? true,
    onEvent: (event) => events.push(event),
    onLog: (text) => log.push(text),
  });
  const raw = new Raw(theirs);
  return {
    regions,
    events,
    log,
    service,
    raw,
    close: () => {
      raw.close();
      service.close();
    },
  };
}

/** Our back-end, and a raw front-end. */
export function backEnd(device?: DeviceModel) {
  const [ours, theirs] = pair();
  const server = new ShmemServer(new Map([[0, 0x100000n]]));
  const log: string[] = [];
  const session = new BackEndSession(ours, device ?? windowDevice(server, { queues: 2, slots: true, configSize: 16 }), {
    onLog: (text) => log.push(text),
  });
  const raw = new Raw(theirs);
  const close = async (): Promise<void> => {
    raw.close();
    await session.done;
    server.close();
  };
  return { session, server, log, raw, close };
}

/** The whole pair: our front-end with its window, our back-end with its mappings. */
export async function whole(
  options: WindowOptions & { regions?: Map<number, bigint>; slots?: boolean; device?: (server: ShmemServer) => DeviceModel } = {},
) {
  const server = new ShmemServer(options.regions ?? new Map([[0, 0x1000000n]]));
  const device = options.device?.(server) ?? windowDevice(server, { queues: 2, slots: options.slots ?? false, configSize: 16 });
  const log: string[] = [];
  const connect = async () => {
    const [ours, theirs] = pair();
    const session: BackEndSession = new BackEndSession(ours, device, {
      onRunning: (running) => server.running(running),
      onClose: () => server.detach(session),
      onLog: (text) => log.push(text),
    });
    server.attach(session);
    return { session, window: await Window.open(theirs, options) };
  };
  const first = await connect();
  return { server, log, connect, ...first };
}
