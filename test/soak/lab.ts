/** The VM lab on each of its kernels: `npm run soak -- lab [arguments of jest]`, for example a file's name. */
import { everythingOf } from '../support/effort.js';

everythingOf('test:vm');
