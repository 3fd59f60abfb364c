import { parseRing } from '../../../../src/uring/host/processes.js';

const head = `pos:\t0
flags:\t02000002
SqMask:\t0x3
SqHead:\t4294967295
SqTail:\t1
CachedSqHead:\t1
CqMask:\t0x7
CqHead:\t1
CqTail:\t4
CachedCqTail:\t4
SQEs:\t1
    0: opcode:READ, fd:3, flags:0, off:0, addr:0x0, rw_flags:0x0, buf_index:0 user_data:7
CQEs:\t1
    1: user_data:7, res:0, flag:0
SqThread:\t-1
SqThreadCpu:\t-1
`;

test('kernel 6.18: paths, octal escapes, polled requests, overflow, indices that wrapped', () => {
  const state = parseRing(`${head}UserFiles:\t4
    0: /etc/hosts
    3: /tmp/a\\040b\\012\\134 ü
UserBufs:\t1
    0: 0x7f0000001000/8192
PollList:
  op=22, task_works=0
CqOverflowList:
  user_data=7, res=-9, flags=0
NAPI:\tdisabled
`);
  expect(state).toEqual({
    sqEntries: 4,
    cqEntries: 8,
    sqPending: 2,
    cqPending: 3,
    sqThread: undefined,
    sqThreadCpu: undefined,
    sqTotalTime: undefined,
    sqWorkTime: undefined,
    tableSize: 4,
    files: [
      { index: 0, path: '/etc/hosts' },
      { index: 3, path: '/tmp/a b\n\\ ü' },
    ],
    buffers: [{ index: 0, address: 0x7f0000001000n, size: 8192 }],
    polled: [{ opcode: 22, taskWorks: 0 }],
    overflow: [{ userData: 7n, result: -9, flags: 0 }],
    napi: 'disabled',
  });
});

test('kernel 6.1: bare names, holes as <none>, no NAPI line', () => {
  const state = parseRing(`${head}UserFiles:\t2
    0: hosts
    1: <none>
UserBufs:\t0
PollList:
CqOverflowList:
`);
  expect(state).toMatchObject({ tableSize: 2, files: [{ index: 0, path: 'hosts' }], buffers: [], napi: undefined });
});

test.each([
  ['nothing', ''],
  ['another file', 'pos:\t0\nflags:\t0100000\n'],
  ['half a ring', 'SqMask:\t0x3\n'],
])('%s is no ring', (_, text) => {
  expect(parseRing(text)).toBeUndefined();
});

test('kernel 6.9: the times of the SQPOLL thread, in microseconds', () => {
  const state =
    parseRing(`${head.replace('SqThread:\t-1', 'SqThread:\t77').replace('SqThreadCpu:\t-1', 'SqThreadCpu:\t1')}SqTotalTime:\t12345678
SqWorkTime:\t4567
UserFiles:\t0
`);
  expect(state).toMatchObject({ sqThread: 77, sqThreadCpu: 1, sqTotalTime: 12_345_678, sqWorkTime: 4567 });
});
