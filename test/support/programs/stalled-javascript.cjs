/** Required before a program: its JavaScript stands still for VIOCTL_TEST_STALL ms after every 5 ms, as on a starved machine. */
const cell = new Int32Array(new SharedArrayBuffer(4));
setInterval(() => Atomics.wait(cell, 0, 0, Number(process.env.VIOCTL_TEST_STALL)), 5).unref();
