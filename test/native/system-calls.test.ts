import fs from 'node:fs';
import path from 'node:path';

const native = path.resolve(__dirname, '..', '..', 'native');
const files = (fs.readdirSync(native, { recursive: true }) as string[]).filter((file) => /\.(cc|h)$/.test(file)).sort();

/** Code without comments and string literals. */
const code = (file: string) =>
  fs
    .readFileSync(path.join(native, file), 'utf8')
    .replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')
    .replace(/"(?:[^"\\\n]|\\.)*"/g, '""');

/** The calls that native/os makes for everybody else: each has one wrapper there, with one owner and one error. */
const calls = [
  ...['open', 'openat', 'creat', 'close', 'dup', 'dup2', 'dup3', 'fcntl', 'pipe', 'pipe2', 'syncfs'],
  ...['mmap', 'munmap', 'mremap', 'memfd_create', 'eventfd', 'sysconf', 'getpagesize', 'getauxval'],
  ...['socket', 'socketpair', 'bind', 'listen', 'accept', 'accept4', 'connect', 'sendmsg', 'recvmsg', 'sendto', 'recvfrom'],
  ...['sigaction', 'signal', 'sigprocmask', 'pthread_sigmask'],
];

/** Why a file may make a call itself. */
const exceptions: Record<string, { calls: string[]; why: string }> = {
  'sysfs/detached.cc': { calls: ['open', 'close', 'signal'], why: 'between fork and _exit: only async-signal-safe calls, no exceptions' },
  'vfio/exec.cc': {
    calls: ['dup2', 'fcntl', 'sigaction', 'sigprocmask'],
    why: 'the last steps before execve, which must not fail half-way',
  },
  'storage/lock.cc': { calls: ['fcntl'], why: 'record locks, which nothing else takes' },
  'nvme/secure.cc': { calls: ['sendmsg'], why: 'the hot loop of the target: scattered answers, no descriptors' },
};

test('the system calls of native/os are made nowhere else', () => {
  const pattern = new RegExp(`(?<![\\w.>:])(?:::)?(${calls.join('|')})\\(`, 'g');
  const found = files
    .filter((file) => !file.startsWith('os/'))
    .flatMap((file) =>
      [...code(file).matchAll(pattern)]
        .filter(([match, name]) => match.startsWith('::') && !exceptions[file]?.calls.includes(name!))
        .map(([, name]) => `${file}: ${name}`),
    );
  expect(found).toEqual([]);
});

test('every exception is needed', () => {
  for (const [file, { calls }] of Object.entries(exceptions))
    for (const name of calls) expect([file, name, new RegExp(`::${name}\\(`).test(code(file))]).toEqual([file, name, true]);
});

test('system calls are written with ::, so that the rule sees them', () => {
  // Without ::, a call cannot be told from a method; names that only the C library has are found all the same.
  const bare = ['syncfs', 'mmap', 'munmap', 'mremap', 'memfd_create', 'pipe2', 'accept4', 'socketpair', 'fcntl', 'sigaction', 'sysconf'];
  const pattern = new RegExp(`(?<![\\w:.>])(?<!struct )(${bare.join('|')})\\((?!\\))`, 'g');
  expect(files.flatMap((file) => [...code(file).matchAll(pattern)].map(([, name]) => `${file}: ${name}`))).toEqual([]);
});

test('the size of a page is written nowhere: os::PageSize() knows it', () => {
  const pattern =
    /0xfff\b|>> 12\b|<< 12\b|_SC_PAGE_?SIZE|\bPAGE_SIZE\b|([Pp]age|[Aa]lign|mmap|[Rr]ound).*\b4096\b|\b4096\b.*([Pp]age|[Aa]lign)/;
  // What is not a page of this kernel.
  const allowed: Record<string, RegExp> = {
    'nvme/host/association.cc': /kPage = 4096/, // of CAP.MPSMIN 0, what MDTS counts in
    'os/mapping.cc': /_SC_PAGESIZE/,
    'migration/mapped.cc': /UINT64_MAX >> 12/, // "no page", below every page number
    'migration/page_map.h': /kPages = 4096/, // pages of the guest noted in one chunk
    'migration/ram.cc': /page_size >> 12/, // deflateBound of zlib
    'migration/ram.h': /page_size = 4096/, // the guest's page
    'storage/direct.h': /kBufferAlignment = 4096/, // the largest logical block of a disk
    'nvme/worker.cc': /aligned_alloc\(4096/, // the largest logical block of a disk
    'storage/memory/view.cc': /kSmallestPage = 4096/, // bounds what mincore(2) fills
    'vhost_user/dirty_log.h': /kPage = 4096/, // VHOST_LOG_PAGE of the protocol
    'vfio/session.cc': /query\.alignment == 4096/, // the IOMMU's pages
  };
  const found = files.flatMap((file) =>
    code(file)
      .split('\n')
      .filter((line) => pattern.test(line) && !allowed[file]?.test(line))
      .map((line) => `${file}: ${line.trim()}`),
  );
  expect(found).toEqual([]);
});
