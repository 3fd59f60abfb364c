/** Options of `nvmf serve` that bound what hosts may take, and say how it tells of them. */
import { Flags } from '../../cli/flags.js';
import { logFormats } from '../../common/text/log.js';

export const limitFlags = {
  'max-controllers': Flags.integer({ min: 1, max: 65519, helpValue: 'N', summary: 'associations at a time [default: 512]' }),
  'max-connections': Flags.integer({ min: 1, max: 65535, helpValue: 'N', summary: 'connections at a time [default: 1024]' }),
  'max-queues': Flags.integer({ min: 1, max: 64, helpValue: 'N', summary: 'I/O queues of a controller [default: 64]' }),
};

export const logFormatFlag = Flags.option({
  options: logFormats,
  default: 'text',
  summary: 'messages on standard error: text, or one JSON object a line',
})();
