"""Takes the pages of files from a process, and from the page cache (process_madvise(2), MADV_PAGEOUT; root).

usage: pageout.py PID FILE. Prints how many bytes of the file are left in the page cache.
"""
import ctypes, mmap, os, sys

SYS_PIDFD_OPEN, SYS_PROCESS_MADVISE, MADV_PAGEOUT = 434, 440, 21
pid, name = int(sys.argv[1]), sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('size', ctypes.c_size_t)]


process = libc.syscall(SYS_PIDFD_OPEN, pid, 0)
# A page that both mappings have is let go by one, then by the other.
for _ in range(2):
    for line in open('/proc/%d/maps' % pid):
        if not line.rstrip().endswith(name):
            continue
        begin, end = (int(word, 16) for word in line.split()[0].split('-'))
        part = Iovec(begin, end - begin)
        if libc.syscall(SYS_PROCESS_MADVISE, process, ctypes.byref(part), ctypes.c_size_t(1), MADV_PAGEOUT, 0) < 0:
            sys.exit('process_madvise: ' + os.strerror(ctypes.get_errno()))
with open(name, 'r+b') as file:
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    size = os.fstat(file.fileno()).st_size
    libc.mmap.restype = ctypes.c_void_p
    at = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), ctypes.c_long(0))
    there = (ctypes.c_ubyte * ((size + 4095) // 4096))()
    libc.mincore(ctypes.c_void_p(at), ctypes.c_size_t(size), there)
    print(sum(one & 1 for one in there) * 4096)
