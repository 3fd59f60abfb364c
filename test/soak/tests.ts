/** Every test, with all that each of them can do: `npm run soak -- tests [arguments of jest]`, for example a file's name. */
import { everythingOf } from '../support/effort.js';

everythingOf('test');
