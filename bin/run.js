#!/usr/bin/env node
// Entry point of the installed program: the answer to --version without loading anything, then the one-file bundle
// with V8's compile cache (start-up is half of a short command's cost).
'use strict';
const path = require('node:path');
const dist = path.join(__dirname, '..', 'dist', 'vioctl.cjs');

const first = process.argv[2];
if (process.argv.length === 3 && (first === '--version' || first === '-V')) {
  const fs = require('node:fs');
  const { version } = JSON.parse(fs.readFileSync(path.join(__dirname, '..', 'package.json'), 'utf8'));
  try {
    fs.writeSync(1, `vioctl ${version}\n`);
  } catch (err) {
    if (err.code !== 'EPIPE') {
      try {
        fs.writeSync(2, `vioctl: write error: ${err.code}\n`);
      } catch {
        // stderr is gone as well: the exit status says it
      }
    }
    process.exitCode = err.code === 'EPIPE' ? 141 : 1;
  }
} else {
  load(dist);
}

/** Runs the bundle through a code cache: Node's own where it has one (22.1 on), else a vm.Script with cachedData. */
function load(file) {
  const mod = require('node:module');
  if (typeof mod.enableCompileCache === 'function') {
    mod.enableCompileCache();
    require(file);
    return;
  }
  const fs = require('node:fs');
  const vm = require('node:vm');
  const source = fs.readFileSync(file, 'utf8');
  const cache = cachePath(fs.statSync(file));
  let cachedData;
  try {
    cachedData = cache === undefined ? undefined : fs.readFileSync(cache);
  } catch {
    // first start: no cache yet
  }
  const script = new vm.Script(mod.wrap(source), {
    filename: file,
    ...(cachedData && { cachedData }),
    importModuleDynamically: vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  });
  const module_ = new mod(file, module);
  module_.filename = file;
  module_.paths = [];
  script.runInThisContext().call(module_.exports, module_.exports, mod.createRequire(file), module_, file, path.dirname(file));
  if (cache !== undefined && (cachedData === undefined || script.cachedDataRejected)) {
    process.once('exit', () => {
      try {
        fs.mkdirSync(path.dirname(cache), { recursive: true, mode: 0o700 });
        const tmp = `${cache}.${process.pid}`;
        fs.writeFileSync(tmp, script.createCachedData(), { mode: 0o600 });
        fs.renameSync(tmp, cache);
      } catch {
        // a read-only home costs some milliseconds at the next start, nothing else
      }
    });
  }
}

/**
 * Cache file for this user, Node, bundle and group of commands (a cache holds the functions that its first run compiled);
 * none where there is no home (the program works without).
 */
function cachePath(stat) {
  const base = process.env.XDG_CACHE_HOME || (process.env.HOME && path.join(process.env.HOME, '.cache'));
  if (!base || !path.isAbsolute(base)) return undefined;
  const group = /^[a-z][a-z-]{1,15}$/.test(first) ? first : 'help';
  return path.join(base, 'vioctl', `${process.version}-${process.arch}-${stat.size}-${Math.trunc(stat.mtimeMs)}-${group}.cache`);
}
