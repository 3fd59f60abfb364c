#include "storage/io.h"

#include "storage/store.h"

namespace vioctl::storage {

void Io::Start(Executor& executor, std::vector<Job*>& batch) {
  executor_ = &executor;
  lane = store->lane().get();
  brief = op == Op::kWrite && !durable && store->Cached();  // it only copies, unless the page cache is full
  if (op != Op::kFlush) {
    run = [](Job* job) { static_cast<Io*>(job)->Perform(); };
    return batch.push_back(this);
  }
  if (!store->Syncs()) return End(store->sync_error());
  const int joined = store->durability().Join(*this);
  if (joined == Durability::kWaiting) return;
  if (joined != Durability::kLeads) return End(joined);
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
  if (joined == Durability::kLeads) return LeadSync();
  if (joined != Durability::kWaiting) End(joined);
}

void Io::LeadSync() { End(store->durability().Finish(store->SyncNow())); }

// On the thread of the sync that has just ended, which has others to tell.
void Io::Lead() {
  brief = false;
  run = [](Job* job) { static_cast<Io*>(job)->LeadSync(); };
  executor_->Submit({this});
}

void Io::Synced(int err) { End(err); }

}  // namespace vioctl::storage
