import type { Group } from './types.js';

const group: Group = {
  summary: 'serve and use NVMe over TCP',
  verbs: {
    serve: { summary: 'serve files, block devices and memory to NVMe/TCP hosts', load: () => import('../commands/nvmf/serve.js') },
    ctl: { summary: 'change a running target', load: () => import('../commands/nvmf/ctl.js') },
    discover: { summary: 'show what a target offers', load: () => import('../commands/nvmf/discover.js') },
    identify: { summary: 'show a controller and its namespaces', load: () => import('../commands/nvmf/identify.js') },
    bench: { summary: 'measure IOPS, bandwidth and latency', load: () => import('../commands/nvmf/bench.js') },
    conform: { summary: 'test whether a target follows the specification', load: () => import('../commands/nvmf/conform.js') },
    proxy: { summary: 'decode and forward PDUs, inject faults', load: () => import('../commands/nvmf/proxy.js') },
    read: { summary: 'read a namespace to stdout or a file', load: () => import('../commands/nvmf/read.js') },
    write: { summary: 'write stdin or a file to a namespace', load: () => import('../commands/nvmf/write.js') },
    logs: { summary: 'show a log page of a controller', load: () => import('../commands/nvmf/logs.js') },
    ping: { summary: 'measure round trips to a controller', load: () => import('../commands/nvmf/ping.js') },
  },
};
export default group;
