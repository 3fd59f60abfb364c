/** Options of `nvmf serve` that bound what hosts may take. */
import { Flags } from '../../cli/flags.js';

export const limitFlags = {
  'max-controllers': Flags.integer({ min: 1, max: 65519, helpValue: 'N', summary: 'associations at a time [default: 512]' }),
  'max-connections': Flags.integer({ min: 1, max: 65535, helpValue: 'N', summary: 'connections at a time [default: 1024]' }),
  'max-queues': Flags.integer({ min: 1, max: 64, helpValue: 'N', summary: 'I/O queues of a controller [default: 64]' }),
};
