/**
 * Operations on a running target, each as a Change: what would be done is found out and checked first, then applied or abandoned.
 * `nvmf ctl` and a new configuration go through these functions alone.
 */
export * from './access.js';
export * from './change.js';
export * from './limits.js';
export * from './namespaces.js';
export * from './paths.js';
