// Runs in the guest: all cases, one after another, in one process.
import { working } from './cases.js';
import { failing } from './failures.js';
import { home, must, runCases } from './harness.js';
import { interruptions } from './interrupted.js';

async function main(): Promise<void> {
  must('modprobe nvme; modprobe e1000; for i in 1 2 3 4 5 6 7 8; do [ -e /sys/class/net/eth0 ] && break; sleep 0.2; done');
  process.env.SYSTEMD_IGNORE_CHROOT = '1'; // else udevadm does nothing: the guest's root is a chroot
  const only = process.env.CASES;
  const all = [...working, ...failing, ...interruptions]
    .filter(({ name }) => only === undefined || new RegExp(only).test(name))
    .filter(({ once }) => !once || process.env.ONCE === '1');
  await runCases(all);
  await home();
}

main().then(
  () => process.exit(0),
  (err) => {
    console.error(err);
    process.exit(1);
  },
);
