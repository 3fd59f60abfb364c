// Made by npm run gen from src/native/vhost-user.ts and src/vhost-user/wire. Change that.
// clang-format off
#pragma once
#include <cstddef>
#include <cstdint>

namespace vioctl::vhost_user {

// Feature bits that queues know.
inline constexpr uint64_t kLogAll = 0x4000000;
inline constexpr uint64_t kIndirectDesc = 0x10000000;
inline constexpr uint64_t kEventIdx = 0x20000000;
inline constexpr uint64_t kRingPacked = 0x400000000;
inline constexpr uint64_t kFeatureFlush = 0x200;  // of virtio-blk
inline constexpr uint64_t kFeatureConfigWce = 0x800;  // of virtio-blk

// Entries of a ring.
inline constexpr uint32_t kMaxQueueSize = 32768;

// Bytes of a request's readable part that JavaScript gets.
inline constexpr uint64_t kMaxCopied = 4096;

// Requests of a queue that JavaScript holds.
inline constexpr uint32_t kMaxTaken = 64;

// Unit of positions and sizes in virtio-blk.
inline constexpr uint64_t kSector = 512;

// Bytes of an answer to GET_ID.
inline constexpr size_t kIdSize = 20;

}  // namespace vioctl::vhost_user
