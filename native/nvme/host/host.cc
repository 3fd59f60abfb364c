#include "nvme/host/host.h"

#include "nvme/host/engine/engine.h"

namespace vioctl::nvme::host {

std::unique_ptr<Host> Host::Open(const NamespaceOptions& options, Events events, int stop) {
  std::unique_ptr<Host> host(new Host);
  host->engine_ = std::make_shared<Engine>(options, std::move(events));
  host->engine_->Open(stop);
  host->facts_ = host->engine_->facts();
  host->controller_ = host->engine_->controller();
  host->queues_ = host->engine_->queues;
  host->depth_ = host->engine_->depth;
  host->engine_->Start();
  return host;
}

Host::~Host() {
  if (engine_) engine_->Stop();
}

uint64_t Host::size() const { return engine_->size.load(); }
PathCount Host::paths() const { return {engine_->paths.load(), engine_->addresses.load()}; }
void Host::Follow(std::vector<Address> found) { engine_->Follow(std::move(found)); }
Hops Host::hops() const { return engine_->hops(); }
uint64_t Host::reconnects() const { return engine_->reconnects.load(); }
void Host::Submit(storage::Request* request) { engine_->Submit(request); }
Status Host::failure() const { return engine_->failure.load(); }
int Host::lost() const { return engine_->lost.load(); }

std::string Host::lost_why() const { return engine_->LostWhy(); }

}  // namespace vioctl::nvme::host
