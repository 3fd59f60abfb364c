/** A host of NVMe over TCP in user space. */
export * from './authenticator.js';
export * from './bench.js';
export * from './blocks.js';
export * from './controller.js';
export * from './copy.js';
export * from './discovery.js';
export * from './errors.js';
export * from './identify.js';
export * from './identity.js';
export * from './keys.js';
export * from './logs.js';
export * from './ping.js';
export * from './queue.js';
