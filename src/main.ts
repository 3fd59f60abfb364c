import fs from 'node:fs';
import { end } from './cli/exit.js';
import { run } from './cli/runner.js';

/** The version in package.json: beside dist/ and beside src/ alike. */
const version = (): string =>
  (JSON.parse(fs.readFileSync(`${import.meta.dirname}/../package.json`, 'utf8')) as { version: string }).version;

run(process.argv.slice(2), process.env, version).then((status) => {
  // All output has left (the runner's promise); handles that are still open must not keep a finished command alive, nor
  // may a thread that sleeps in what a signal has cut short (the opening of a FIFO).
  end(status, status > 128);
});
