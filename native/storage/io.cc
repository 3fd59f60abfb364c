#include "storage/io.h"

#include <cerrno>

#include "storage/store.h"

namespace vioctl::storage {

void Io::Start(Executor& executor, std::vector<Job*>& batch) {
  executor_ = &executor;
  lane = store->lane().get();
  brief = op == Op::kWrite && !durable && store->Cached();  // it only copies, unless the page cache is full
  if (store->remote() && op != Op::kFlush && op != Op::kCompare) return Begin();
  if (op != Op::kFlush) {
    run = [](Job* job) { static_cast<Io*>(job)->Perform(); };
    return batch.push_back(this);
  }
  if (!store->Syncs()) return End(store->sync_error());
  const int joined = store->durability().Join(*this);
  if (joined == Durability::kWaiting) return;
  if (joined != Durability::kLeads) return End(joined);
  if (store->remote()) return BeginSync();
  run = [](Job* job) { static_cast<Io*>(job)->LeadSync(); };
  batch.push_back(this);
}

void Io::End(int err) {
  result = err;
  done(this);
}

// On a thread that may wait.
void Io::Perform() {
  if (durable)
    if (const int err = store->sync_error()) return End(err);
  int err = 0;
  switch (op) {
    case Op::kRead:
      err = store->Read(parts, count, offset, false);
      break;
    case Op::kWrite:
      err = store->Write(parts, count, offset, false);
      break;
    case Op::kCompare:
      err = store->Compare(parts, count, offset);
      break;
    case Op::kZero:
      err = store->Zero(offset, length, deallocate);
      break;
    case Op::kDiscard:
      err = store->Discard(offset, length);
      break;
    case Op::kFlush:
      break;
  }
  if (err != 0 || !durable) return End(err);
  Sync(*executor_);
}

void Io::Sync(Executor& executor) {
  executor_ = &executor;
  lane = store->lane().get();
  if (!store->Syncs()) return End(store->sync_error());
  const int joined = store->durability().Join(*this);
  if (joined == Durability::kLeads) return store->remote() ? BeginSync() : LeadSync();
  if (joined != Durability::kWaiting) End(joined);
}

void Io::LeadSync() {
  const int err = store->SyncNow();
  End(store->durability().Finish(err, store->Loses(err)));
}

// Has a source that answers later do it.
void Io::Begin() {
  if (durable)
    if (const int err = store->sync_error()) return End(err);
  if (op != Op::kRead && store->readonly()) return End(EROFS);
  const bool data = op == Op::kRead || op == Op::kWrite;
  static_cast<Request&>(later_) = {.op = op,
                                   .durable = durable && store->TakesDurable(),
                                   .deallocate = deallocate,
                                   .parts = parts,
                                   .count = count,
                                   .offset = offset,
                                   .length = data ? BytesOf(parts, count) : length};
  later_.io = this;
  later_.done = [](Request* request) {
    Io* io = static_cast<Later*>(request)->io;
    const int err = request->result;
    io->store->Failed(err);
    if (err != 0 || !io->durable || request->durable) return io->End(err);
    io->Sync(*io->executor_);
  };
  store->Begin(&later_);
}

void Io::BeginSync() {
  static_cast<Request&>(later_) = {.op = Op::kFlush};
  later_.io = this;
  later_.done = [](Request* request) {
    Io* io = static_cast<Later*>(request)->io;
    const int err = request->result;
    io->store->Failed(err);
    io->End(io->store->durability().Finish(err, io->store->Loses(err)));
  };
  store->Begin(&later_);
}

// On the thread of the sync that has just ended, which has others to tell.
void Io::Lead() {
  if (store->remote()) return BeginSync();
  brief = false;
  run = [](Job* job) { static_cast<Io*>(job)->LeadSync(); };
  executor_->Submit({this});
}

void Io::Synced(int err) { End(err); }

}  // namespace vioctl::storage
