#!/usr/bin/env node
// Entry point of a checkout: the TypeScript sources through tsx, no build needed but the addon's.
'use strict';
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const main = path.join(__dirname, '..', 'src', 'main.ts');
const { status, signal } = spawnSync(process.execPath, ['--import', 'tsx', main, ...process.argv.slice(2)], { stdio: 'inherit' });
if (signal) process.kill(process.pid, signal);
process.exitCode = status ?? 1;
