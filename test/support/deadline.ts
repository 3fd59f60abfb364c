/**
 * Once VIOCTL_UNTIL (seconds since the epoch) is past, the tests of a file that begins are left out: on a machine that is
 * too slow for all of them, .ci/run ends in time and names the files (.ci/sum.mjs).
 */
const until = Number(process.env.VIOCTL_UNTIL ?? Number.POSITIVE_INFINITY) * 1000;
if (Date.now() > until) Object.assign(globalThis, { test: test.skip, it: it.skip });
