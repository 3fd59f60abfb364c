// Exports of native/migration. Sources and RAM walks are opaque handles, first argument of their functions.
#pragma once
#include <napi.h>

namespace vioctl::migration {

// openSource({fd, kind: "file" | "pipe" | "extents", start, extents?: BigInt64Array, gzip?, prefix?}): Source. The
// descriptor stays the caller's and must stay open.
Napi::Value OpenSource(const Napi::CallbackInfo& info);
Napi::Value NewPipe(const Napi::CallbackInfo& info);         // pipe(): [read, write], close-on-exec
Napi::Value SeekFd(const Napi::CallbackInfo& info);          // seekFd(fd, position): lseek
Napi::Value Allocate(const Napi::CallbackInfo& info);        // allocate(fd, size): posix_fallocate
Napi::Value SetNonblocking(const Napi::CallbackInfo& info);  // setNonblocking(fd): O_NONBLOCK
Napi::Value SourceState(const Napi::CallbackInfo& info);     // sourceState(source): {position, end, errno, seekable}
Napi::Value Read(const Napi::CallbackInfo& info);            // read(source, size): Buffer, short at an end
Napi::Value Peek(const Napi::CallbackInfo& info);            // peek(source, size <= 128K): Buffer, short at an end
Napi::Value NextNumber(
    const Napi::CallbackInfo& info);                   // nextNumber(source, bytes <= 6, take): big-endian, -1 at an end
Napi::Value Position(const Napi::CallbackInfo& info);  // position(source)
Napi::Value SourceSize(const Napi::CallbackInfo& info);    // sourceSize(source)
Napi::Value Skip(const Napi::CallbackInfo& info);          // skip(source, size): bytes skipped
Napi::Value Seek(const Napi::CallbackInfo& info);          // seek(source, position)
Napi::Value SetLimit(const Napi::CallbackInfo& info);      // setLimit(source, end); -1 is none
Napi::Value FindFooter(const Napi::CallbackInfo& info);    // findFooter(source, id, most): bytes to it, -1 if none
Napi::Value NewRam(const Napi::CallbackInfo& info);        // newRam({pageSize, check, hash, pageMaps}): Ram
Napi::Value AddBlock(const Napi::CallbackInfo& info);      // addBlock(ram, name, length): index
Napi::Value StepRam(const Napi::CallbackInfo& info);       // stepRam(ram, source, budget): {stop, ...}
Napi::Value ReadBitmap(const Napi::CallbackInfo& info);    // readBitmap(ram, source, block, order): boolean
Napi::Value SettleBitmap(const Napi::CallbackInfo& info);  // settleBitmap(ram, block): order
Napi::Value MappedPages(const Napi::CallbackInfo& info);   // mappedPages(ram, source, block, at, from, budget, fd)
Napi::Value CutMapped(const Napi::CallbackInfo& info);     // cutMapped(ram, block, available)
Napi::Value ExtractTo(const Napi::CallbackInfo& info);     // extractTo(ram, fd, BigInt64Array of block, from, to, out)
Napi::Value BlockStates(const Napi::CallbackInfo& info);   // blockStates(ram): counters of each block
Napi::Value PageRuns(const Napi::CallbackInfo& info);      // pageRuns(ram, block, kind, from, most): pairs [first, end)
Napi::Value PageHashes(const Napi::CallbackInfo& info);    // pageHashes(ram, block): BigUint64Array, 0 for zeros
Napi::Value RamIssues(const Napi::CallbackInfo& info);     // ramIssues(ram): {issues, lost}

}  // namespace vioctl::migration
