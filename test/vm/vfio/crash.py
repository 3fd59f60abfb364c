"""Loads a kernel for a crash, or unloads it (kexec_file_load(2)): crash.py VMLINUZ, crash.py"""
import ctypes
import os
import sys

SYSCALL, UNLOAD, ON_CRASH, NO_INITRAMFS = 320, 1, 2, 4
libc = ctypes.CDLL(None, use_errno=True)
load = len(sys.argv) > 1
kernel = os.open(sys.argv[1], os.O_RDONLY) if load else -1
flags = ctypes.c_ulong(ON_CRASH | (NO_INITRAMFS if load else UNLOAD))
if libc.syscall(SYSCALL, kernel, -1, ctypes.c_ulong(1 if load else 0), b"\0" if load else None, flags):
    sys.exit(os.strerror(ctypes.get_errno()))
