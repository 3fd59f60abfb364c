// Made by npm run gen from src/common/errno.ts. Change that.
// clang-format off
#pragma once
#include <cerrno>

namespace vioctl {

struct Errno {
  int number;
  const char* name;
  const char* text;  // as strerror(3) has it
};
inline constexpr Errno kErrnos[] = {
    {EPERM, "EPERM", "Operation not permitted"},
    {ENOENT, "ENOENT", "No such file or directory"},
    {ESRCH, "ESRCH", "No such process"},
    {EINTR, "EINTR", "Interrupted system call"},
    {EIO, "EIO", "Input/output error"},
    {ENXIO, "ENXIO", "No such device or address"},
    {E2BIG, "E2BIG", "Argument list too long"},
    {ENOEXEC, "ENOEXEC", "Exec format error"},
    {EBADF, "EBADF", "Bad file descriptor"},
    {ECHILD, "ECHILD", "No child processes"},
    {EAGAIN, "EAGAIN", "Resource temporarily unavailable"},
    {ENOMEM, "ENOMEM", "Cannot allocate memory"},
    {EACCES, "EACCES", "Permission denied"},
    {EFAULT, "EFAULT", "Bad address"},
    {ENOTBLK, "ENOTBLK", "Block device required"},
    {EBUSY, "EBUSY", "Device or resource busy"},
    {EEXIST, "EEXIST", "File exists"},
    {EXDEV, "EXDEV", "Invalid cross-device link"},
    {ENODEV, "ENODEV", "No such device"},
    {ENOTDIR, "ENOTDIR", "Not a directory"},
    {EISDIR, "EISDIR", "Is a directory"},
    {EINVAL, "EINVAL", "Invalid argument"},
    {ENFILE, "ENFILE", "Too many open files in system"},
    {EMFILE, "EMFILE", "Too many open files"},
    {ENOTTY, "ENOTTY", "Inappropriate ioctl for device"},
    {ETXTBSY, "ETXTBSY", "Text file busy"},
    {EFBIG, "EFBIG", "File too large"},
    {ENOSPC, "ENOSPC", "No space left on device"},
    {ESPIPE, "ESPIPE", "Illegal seek"},
    {EROFS, "EROFS", "Read-only file system"},
    {EMLINK, "EMLINK", "Too many links"},
    {EPIPE, "EPIPE", "Broken pipe"},
    {EDOM, "EDOM", "Numerical argument out of domain"},
    {ERANGE, "ERANGE", "Numerical result out of range"},
    {EDEADLK, "EDEADLK", "Resource deadlock avoided"},
    {ENAMETOOLONG, "ENAMETOOLONG", "File name too long"},
    {ENOLCK, "ENOLCK", "No locks available"},
    {ENOSYS, "ENOSYS", "Function not implemented"},
    {ENOTEMPTY, "ENOTEMPTY", "Directory not empty"},
    {ELOOP, "ELOOP", "Too many levels of symbolic links"},
    {ENOMSG, "ENOMSG", "No message of desired type"},
    {EIDRM, "EIDRM", "Identifier removed"},
    {ECHRNG, "ECHRNG", "Channel number out of range"},
    {EL2NSYNC, "EL2NSYNC", "Level 2 not synchronized"},
    {EL3HLT, "EL3HLT", "Level 3 halted"},
    {EL3RST, "EL3RST", "Level 3 reset"},
    {ELNRNG, "ELNRNG", "Link number out of range"},
    {EUNATCH, "EUNATCH", "Protocol driver not attached"},
    {ENOCSI, "ENOCSI", "No CSI structure available"},
    {EL2HLT, "EL2HLT", "Level 2 halted"},
    {EBADE, "EBADE", "Invalid exchange"},
    {EBADR, "EBADR", "Invalid request descriptor"},
    {EXFULL, "EXFULL", "Exchange full"},
    {ENOANO, "ENOANO", "No anode"},
    {EBADRQC, "EBADRQC", "Invalid request code"},
    {EBADSLT, "EBADSLT", "Invalid slot"},
    {EBFONT, "EBFONT", "Bad font file format"},
    {ENOSTR, "ENOSTR", "Device not a stream"},
    {ENODATA, "ENODATA", "No data available"},
    {ETIME, "ETIME", "Timer expired"},
    {ENOSR, "ENOSR", "Out of streams resources"},
    {ENONET, "ENONET", "Machine is not on the network"},
    {ENOPKG, "ENOPKG", "Package not installed"},
    {EREMOTE, "EREMOTE", "Object is remote"},
    {ENOLINK, "ENOLINK", "Link has been severed"},
    {EADV, "EADV", "Advertise error"},
    {ESRMNT, "ESRMNT", "Srmount error"},
    {ECOMM, "ECOMM", "Communication error on send"},
    {EPROTO, "EPROTO", "Protocol error"},
    {EMULTIHOP, "EMULTIHOP", "Multihop attempted"},
    {EDOTDOT, "EDOTDOT", "RFS specific error"},
    {EBADMSG, "EBADMSG", "Bad message"},
    {EOVERFLOW, "EOVERFLOW", "Value too large for defined data type"},
    {ENOTUNIQ, "ENOTUNIQ", "Name not unique on network"},
    {EBADFD, "EBADFD", "File descriptor in bad state"},
    {EREMCHG, "EREMCHG", "Remote address changed"},
    {ELIBACC, "ELIBACC", "Can not access a needed shared library"},
    {ELIBBAD, "ELIBBAD", "Accessing a corrupted shared library"},
    {ELIBSCN, "ELIBSCN", ".lib section in a.out corrupted"},
    {ELIBMAX, "ELIBMAX", "Attempting to link in too many shared libraries"},
    {ELIBEXEC, "ELIBEXEC", "Cannot exec a shared library directly"},
    {EILSEQ, "EILSEQ", "Invalid or incomplete multibyte or wide character"},
    {ERESTART, "ERESTART", "Interrupted system call should be restarted"},
    {ESTRPIPE, "ESTRPIPE", "Streams pipe error"},
    {EUSERS, "EUSERS", "Too many users"},
    {ENOTSOCK, "ENOTSOCK", "Socket operation on non-socket"},
    {EDESTADDRREQ, "EDESTADDRREQ", "Destination address required"},
    {EMSGSIZE, "EMSGSIZE", "Message too long"},
    {EPROTOTYPE, "EPROTOTYPE", "Protocol wrong type for socket"},
    {ENOPROTOOPT, "ENOPROTOOPT", "Protocol not available"},
    {EPROTONOSUPPORT, "EPROTONOSUPPORT", "Protocol not supported"},
    {ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT", "Socket type not supported"},
    {EOPNOTSUPP, "EOPNOTSUPP", "Operation not supported"},
    {EPFNOSUPPORT, "EPFNOSUPPORT", "Protocol family not supported"},
    {EAFNOSUPPORT, "EAFNOSUPPORT", "Address family not supported by protocol"},
    {EADDRINUSE, "EADDRINUSE", "Address already in use"},
    {EADDRNOTAVAIL, "EADDRNOTAVAIL", "Cannot assign requested address"},
    {ENETDOWN, "ENETDOWN", "Network is down"},
    {ENETUNREACH, "ENETUNREACH", "Network is unreachable"},
    {ENETRESET, "ENETRESET", "Network dropped connection on reset"},
    {ECONNABORTED, "ECONNABORTED", "Software caused connection abort"},
    {ECONNRESET, "ECONNRESET", "Connection reset by peer"},
    {ENOBUFS, "ENOBUFS", "No buffer space available"},
    {EISCONN, "EISCONN", "Transport endpoint is already connected"},
    {ENOTCONN, "ENOTCONN", "Transport endpoint is not connected"},
    {ESHUTDOWN, "ESHUTDOWN", "Cannot send after transport endpoint shutdown"},
    {ETOOMANYREFS, "ETOOMANYREFS", "Too many references: cannot splice"},
    {ETIMEDOUT, "ETIMEDOUT", "Connection timed out"},
    {ECONNREFUSED, "ECONNREFUSED", "Connection refused"},
    {EHOSTDOWN, "EHOSTDOWN", "Host is down"},
    {EHOSTUNREACH, "EHOSTUNREACH", "No route to host"},
    {EALREADY, "EALREADY", "Operation already in progress"},
    {EINPROGRESS, "EINPROGRESS", "Operation now in progress"},
    {ESTALE, "ESTALE", "Stale file handle"},
    {EUCLEAN, "EUCLEAN", "Structure needs cleaning"},
    {ENOTNAM, "ENOTNAM", "Not a XENIX named type file"},
    {ENAVAIL, "ENAVAIL", "No XENIX semaphores available"},
    {EISNAM, "EISNAM", "Is a named type file"},
    {EREMOTEIO, "EREMOTEIO", "Remote I/O error"},
    {EDQUOT, "EDQUOT", "Disk quota exceeded"},
    {ENOMEDIUM, "ENOMEDIUM", "No medium found"},
    {EMEDIUMTYPE, "EMEDIUMTYPE", "Wrong medium type"},
    {ECANCELED, "ECANCELED", "Operation canceled"},
    {ENOKEY, "ENOKEY", "Required key not available"},
    {EKEYEXPIRED, "EKEYEXPIRED", "Key has expired"},
    {EKEYREVOKED, "EKEYREVOKED", "Key has been revoked"},
    {EKEYREJECTED, "EKEYREJECTED", "Key was rejected by service"},
    {EOWNERDEAD, "EOWNERDEAD", "Owner died"},
    {ENOTRECOVERABLE, "ENOTRECOVERABLE", "State not recoverable"},
    {ERFKILL, "ERFKILL", "Operation not possible due to RF-kill"},
    {EHWPOISON, "EHWPOISON", "Memory page has hardware error"},
};
static_assert(EPERM == 1);
static_assert(ENOENT == 2);
static_assert(ESRCH == 3);
static_assert(EINTR == 4);
static_assert(EIO == 5);
static_assert(ENXIO == 6);
static_assert(E2BIG == 7);
static_assert(ENOEXEC == 8);
static_assert(EBADF == 9);
static_assert(ECHILD == 10);
static_assert(EAGAIN == 11);
static_assert(ENOMEM == 12);
static_assert(EACCES == 13);
static_assert(EFAULT == 14);
static_assert(ENOTBLK == 15);
static_assert(EBUSY == 16);
static_assert(EEXIST == 17);
static_assert(EXDEV == 18);
static_assert(ENODEV == 19);
static_assert(ENOTDIR == 20);
static_assert(EISDIR == 21);
static_assert(EINVAL == 22);
static_assert(ENFILE == 23);
static_assert(EMFILE == 24);
static_assert(ENOTTY == 25);
static_assert(ETXTBSY == 26);
static_assert(EFBIG == 27);
static_assert(ENOSPC == 28);
static_assert(ESPIPE == 29);
static_assert(EROFS == 30);
static_assert(EMLINK == 31);
static_assert(EPIPE == 32);
static_assert(EDOM == 33);
static_assert(ERANGE == 34);
static_assert(EDEADLK == 35);
static_assert(ENAMETOOLONG == 36);
static_assert(ENOLCK == 37);
static_assert(ENOSYS == 38);
static_assert(ENOTEMPTY == 39);
static_assert(ELOOP == 40);
static_assert(ENOMSG == 42);
static_assert(EIDRM == 43);
static_assert(ECHRNG == 44);
static_assert(EL2NSYNC == 45);
static_assert(EL3HLT == 46);
static_assert(EL3RST == 47);
static_assert(ELNRNG == 48);
static_assert(EUNATCH == 49);
static_assert(ENOCSI == 50);
static_assert(EL2HLT == 51);
static_assert(EBADE == 52);
static_assert(EBADR == 53);
static_assert(EXFULL == 54);
static_assert(ENOANO == 55);
static_assert(EBADRQC == 56);
static_assert(EBADSLT == 57);
static_assert(EBFONT == 59);
static_assert(ENOSTR == 60);
static_assert(ENODATA == 61);
static_assert(ETIME == 62);
static_assert(ENOSR == 63);
static_assert(ENONET == 64);
static_assert(ENOPKG == 65);
static_assert(EREMOTE == 66);
static_assert(ENOLINK == 67);
static_assert(EADV == 68);
static_assert(ESRMNT == 69);
static_assert(ECOMM == 70);
static_assert(EPROTO == 71);
static_assert(EMULTIHOP == 72);
static_assert(EDOTDOT == 73);
static_assert(EBADMSG == 74);
static_assert(EOVERFLOW == 75);
static_assert(ENOTUNIQ == 76);
static_assert(EBADFD == 77);
static_assert(EREMCHG == 78);
static_assert(ELIBACC == 79);
static_assert(ELIBBAD == 80);
static_assert(ELIBSCN == 81);
static_assert(ELIBMAX == 82);
static_assert(ELIBEXEC == 83);
static_assert(EILSEQ == 84);
static_assert(ERESTART == 85);
static_assert(ESTRPIPE == 86);
static_assert(EUSERS == 87);
static_assert(ENOTSOCK == 88);
static_assert(EDESTADDRREQ == 89);
static_assert(EMSGSIZE == 90);
static_assert(EPROTOTYPE == 91);
static_assert(ENOPROTOOPT == 92);
static_assert(EPROTONOSUPPORT == 93);
static_assert(ESOCKTNOSUPPORT == 94);
static_assert(EOPNOTSUPP == 95);
static_assert(EPFNOSUPPORT == 96);
static_assert(EAFNOSUPPORT == 97);
static_assert(EADDRINUSE == 98);
static_assert(EADDRNOTAVAIL == 99);
static_assert(ENETDOWN == 100);
static_assert(ENETUNREACH == 101);
static_assert(ENETRESET == 102);
static_assert(ECONNABORTED == 103);
static_assert(ECONNRESET == 104);
static_assert(ENOBUFS == 105);
static_assert(EISCONN == 106);
static_assert(ENOTCONN == 107);
static_assert(ESHUTDOWN == 108);
static_assert(ETOOMANYREFS == 109);
static_assert(ETIMEDOUT == 110);
static_assert(ECONNREFUSED == 111);
static_assert(EHOSTDOWN == 112);
static_assert(EHOSTUNREACH == 113);
static_assert(EALREADY == 114);
static_assert(EINPROGRESS == 115);
static_assert(ESTALE == 116);
static_assert(EUCLEAN == 117);
static_assert(ENOTNAM == 118);
static_assert(ENAVAIL == 119);
static_assert(EISNAM == 120);
static_assert(EREMOTEIO == 121);
static_assert(EDQUOT == 122);
static_assert(ENOMEDIUM == 123);
static_assert(EMEDIUMTYPE == 124);
static_assert(ECANCELED == 125);
static_assert(ENOKEY == 126);
static_assert(EKEYEXPIRED == 127);
static_assert(EKEYREVOKED == 128);
static_assert(EKEYREJECTED == 129);
static_assert(EOWNERDEAD == 130);
static_assert(ENOTRECOVERABLE == 131);
static_assert(ERFKILL == 132);
static_assert(EHWPOISON == 133);

}  // namespace vioctl
