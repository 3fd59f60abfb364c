import { end } from './cli/exit.js';
import { run } from './cli/runner.js';
import { carryNames } from './common/text/names.js';

carryNames();

// package.json and completions/ lie beside dist/ and beside src/ alike.
run(process.argv.slice(2), process.env, `${import.meta.dirname}/..`).then((status) => {
  // All output has left (the runner's promise); handles that are still open must not keep a finished command alive, nor
  // may a thread that sleeps in what a signal has cut short (the opening of a FIFO).
  end(status, status > 128);
});
