/** The wire formats of NVMe over TCP: tables, and what is encoded and decoded by them. */

export * from '../../common/struct.js';
export * from './auth.js';
export * from './command.js';
export * from './identify.js';
export * from './limits.js';
export * from './logs.js';
export * from './opcodes.js';
export * from './pdu.js';
export * from './properties.js';
export * from './reader.js';
export * from './status.js';
