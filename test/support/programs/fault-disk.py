"""A disk that can be made slow or made to fail: one file in a small FUSE file system (raw /dev/fuse; root; no library).

usage: fault-disk.py DIR SIZE NAME [volatile]. Prints "ready" when DIR/NAME can be used; then answers one JSON object for each line of
stdin:
  {"set": {...}}     write_delay, read_delay, sync_delay, open_delay, close_delay: seconds; fail_syncs, fail_writes: the next N requests answer EIO;
                     full_after: writes beyond this many bytes of data answer ENOSPC;
                     random: {"OP_FAULT": probability}: read_eio, write_eio, sync_eio, punch_eio, write_enospc, write_edquot,
                     read, write and sync: _estale (a stale handle), _enxio (a removed device),
                     read_short, write_short, read_slow, write_slow, sync_slow; slow: seconds at most; unit: a short
                     transfer is a multiple of so many bytes; seed
  {"log": 1}         [[op, offset, length, when it came, when it was answered], ...]
  {"stats": 1}       {"OP_FAULT": how often it was injected}
  {"data": [off, n]} what is on the disk, in base64
  {"cut": 1}         a power cut: what no sync has made durable is lost, or not, sector by sector (only volatile)
The page cache is write-through: write(2) comes here at once, fsync(2) comes here as FSYNC. A volatile disk has no page cache
above it, as with O_DIRECT; it has a write cache of its own, which a failed sync loses in part.
"""
import base64, ctypes, errno, json, os, random, struct, sys, threading, time

SECTOR = 512
OPS = {'read': 'read', 'write': 'write', 'fsync': 'sync', 'punch': 'punch'}


# ---- the server
class Server:
    def __init__(self, dir, size, name, volatile):
        self.size, self.name, self.used, self.volatile = size, name, 0, volatile
        self.fd = os.memfd_create('disk')
        os.ftruncate(self.fd, size)
        self.durable = os.memfd_create('durable')
        os.ftruncate(self.durable, size)
        self.dirty = set()
        self.k = dict(write_delay=0.0, read_delay=0.0, sync_delay=0.0, open_delay=0.0, close_delay=0.0, fail_syncs=0, fail_writes=0, full_after=0, random={}, slow=0.2, unit=SECTOR,
                      seed=1)
        self.lg, self.lock, self.stats, self.dice = [], threading.RLock(), {}, random.Random(1)
        self.dev = os.open('/dev/fuse', os.O_RDWR)
        libc = ctypes.CDLL(None, use_errno=True)
        opt = 'fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other' % (self.dev, os.getuid(), os.getgid())
        if libc.mount(b'faultdisk', dir.encode(), b'fuse', 6, opt.encode()):
            print('mount: ' + os.strerror(ctypes.get_errno()), flush=True)
            sys.exit(1)

    def set(self, values):
        with self.lock:
            self.k.update(values)
            if 'seed' in values: self.dice.seed(values['seed'])

    def attr(self, node):
        d = node == 1
        return struct.pack('<6Q10I', node, 4096 if d else self.size, 8 if d else self.size // 512, 1, 1, 1, 0, 0, 0,
                           0o40755 if d else 0o100666, 2 if d else 1, os.getuid(), os.getgid(), 0, 4096, 0)

    def answer(self, unique, body=b'', err=0):
        try: os.write(self.dev, struct.pack('<IiQ', 16 + (0 if err else len(body)), -err, unique) + (b'' if err else body))
        except OSError: pass                                   # the request was withdrawn

    def later(self, delay, fn):
        if delay > 0:
            t = threading.Timer(delay, fn)
            t.daemon = True
            t.start()
        else: fn()

    def hit(self, op, fault):
        """Whether a random fault happens now."""
        name = OPS[op] + '_' + fault
        p = self.k['random'].get(name, 0)
        if p <= 0 or self.dice.random() >= p: return False
        self.stats[name] = self.stats.get(name, 0) + 1
        return True

    # ---- the write cache of a volatile disk: sectors that no sync has made durable
    def changed(self, off, n):
        if self.volatile: self.dirty.update(range(off // SECTOR, (off + n + SECTOR - 1) // SECTOR))

    def settle(self, kept):
        """Ends the write cache: kept() says for each sector whether it has become durable."""
        for sector in self.dirty:
            source, to = (self.fd, self.durable) if kept() else (self.durable, self.fd)
            os.pwrite(to, os.pread(source, SECTOR, sector * SECTOR), sector * SECTOR)
        self.dirty.clear()

    def zero(self, off, n):
        os.pwrite(self.fd, bytes(n), off)
        self.changed(off, n)

    def data_op(self, op, unique, off, n, data):
        k, came = self.k, time.monotonic()
        err = 0
        with self.lock:
            if op == 'fsync' and k['fail_syncs'] > 0: k['fail_syncs'] -= 1; err = errno.EIO
            if op == 'write' and k['fail_writes'] > 0: k['fail_writes'] -= 1; err = errno.EIO
            for fault, code in (('eio', errno.EIO), ('enospc', errno.ENOSPC), ('edquot', errno.EDQUOT),
                                ('estale', errno.ESTALE), ('enxio', errno.ENXIO)):
                if not err and self.hit(op, fault): err = code
            if op in ('read', 'write') and not err and n > k['unit'] and self.hit(op, 'short'):
                n = self.dice.randrange(k['unit'], n, k['unit'])
            if op == 'write' and not err:
                if k['full_after'] and self.used + n > k['full_after']: err = errno.ENOSPC
                else: self.used += n
            entry = [op, off, n, came, None]
            if not self.volatile: self.lg.append(entry)       # which lives long
            slow = self.dice.random() * k['slow'] if op != 'punch' and self.hit(op, 'slow') else 0

        def do():
            body = b''
            with self.lock:
                if op == 'fsync' and self.volatile:
                    self.settle((lambda: self.dice.random() < 0.5) if err else (lambda: True))
                if not err:
                    if op == 'write':
                        os.pwrite(self.fd, data[:n], off)
                        self.changed(off, n)
                        body = struct.pack('<II', n, 0)
                    if op == 'read': body = os.pread(self.fd, n, off)
                    if op == 'punch': self.zero(off, n)
            entry[4] = time.monotonic()
            self.answer(unique, body, err)
        self.later(slow + {'write': k['write_delay'], 'read': k['read_delay'], 'fsync': k['sync_delay']}.get(op, 0), do)

    def one(self, m):
        op, unique, node = struct.unpack_from('<xxxxIQQ', m)
        p = m[40:]
        A = lambda b=b'', e=0: self.answer(unique, b, e)
        if op == 26: A(struct.pack('<IIIIHHIIHHI28x', 7, 31, 1 << 17, 1 | 1 << 5 | 1 << 22, 64, 48, 1 << 20, 1, 256, 0, 0))
        elif op == 1:
            if p.rstrip(b'\0').decode() == self.name: A(struct.pack('<QQQQII', 2, 0, 3600, 3600, 0, 0) + self.attr(2))
            else: A(e=errno.ENOENT)
        elif op == 3: A(struct.pack('<QII', 3600, 0, 0) + self.attr(node))
        elif op == 4:
            valid = struct.unpack_from('<I', p)[0]
            if valid & 8:
                self.size = struct.unpack_from('<Q', p, 16)[0]
                os.ftruncate(self.fd, self.size)
                os.ftruncate(self.durable, self.size)
            A(struct.pack('<QII', 3600, 0, 0) + self.attr(node))
        # FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES, or FOPEN_KEEP_CACHE
        elif op in (14, 27):
            body = struct.pack('<QII', 1, (1 | 64 if self.volatile else 2) if op == 14 else 0, 0)
            if op == 14: self.lg.append(['open', 0, 0])
            self.later(self.k['open_delay'] if op == 14 else 0, lambda: A(body))
        elif op == 15:
            off, n = struct.unpack_from('<QI', p, 8)
            self.data_op('read', unique, off, n, None)
        elif op == 16:
            off, n = struct.unpack_from('<QI', p, 8)
            self.data_op('write', unique, off, n, bytes(p[40:40 + n]))
        elif op == 20: self.data_op('fsync', unique, 0, 0, None)
        elif op == 17: A(struct.pack('<QQQQQIIII24x', 1 << 20, 1 << 20, 1 << 20, 1, 1, 4096, 255, 4096, 0))
        elif op in (18, 29): A()
        elif op == 25: self.later(self.k['close_delay'], A)
        elif op == 28: A()
        elif op in (2, 42, 36): pass
        elif op == 43:
            off, n, mode = struct.unpack_from('<QQI', p, 8)
            if mode & 2 and off < self.size: self.data_op('punch', unique, off, min(n, self.size - off), None)
            else: A(e=errno.EOPNOTSUPP)
        else: A(e=errno.ENOSYS)

    def loop(self):
        while True:
            try: m = os.read(self.dev, (1 << 20) + 8192)
            except OSError as e:
                if e.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN): continue
                return
            if not m: return
            self.one(m)

    def cut(self):
        with self.lock: self.settle(lambda: self.dice.random() < 0.5)


def main():
    s = Server(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:] == ['volatile'])
    threading.Thread(target=s.loop, daemon=True).start()
    print('ready', flush=True)
    for line in sys.stdin:
        d = json.loads(line)
        r = 0
        if 'set' in d: s.set(d['set'])
        elif 'log' in d: r = list(s.lg)
        elif 'stats' in d: r = dict(s.stats)
        elif 'cut' in d: s.cut()
        else: r = base64.b64encode(os.pread(s.fd, d['data'][1], d['data'][0])).decode()
        print(json.dumps(r), flush=True)
    os._exit(0)                                               # closes /dev/fuse: the kernel ends every request that still waits


if __name__ == '__main__': main()
