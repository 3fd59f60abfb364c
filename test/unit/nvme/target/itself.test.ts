import { refuseItself } from '../../../../src/nvme/target/serve/itself.js';

const nqn = 'nqn.2014-08.org.example:self';
const config = (listen: string[] | undefined, source: string) => ({
  ...(listen && { listen }),
  subsystems: [{ nqn, namespaces: [{ source, nsid: 1 }] }],
});

test('a target that is not told where it listens, and one that would serve itself there', () => {
  expect(() => refuseItself(config(undefined, '/disk.img'))).not.toThrow();
  expect(() => refuseItself(config(undefined, `nvme+tcp://127.0.0.1:4420/${nqn}/1`))).toThrow('would serve itself');
  expect(() => refuseItself(config(undefined, `nvme+tcp://127.0.0.1:4421/${nqn}/1`))).not.toThrow();
});
