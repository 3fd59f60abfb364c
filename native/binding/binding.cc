// The only file that names what JavaScript sees. Each domain is one object of the exports; src/native/<domain>.ts
// holds its typed interface, and a test compares the two.
#include <napi.h>

#include "binding/call.h"
#include "binding/common.h"
#include "binding/iova.h"
#include "binding/migration.h"
#include "binding/nvme.h"
#include "binding/nvme_host.h"
#include "binding/storage.h"
#include "binding/sysfs.h"
#include "binding/uring.h"
#include "binding/vfio.h"
#include "binding/vhost_user.h"
#include "binding/watch.h"

namespace {

using vioctl::Guarded;

struct Export {
  const char* name;
  Napi::Value (*method)(const Napi::CallbackInfo&);
};

constexpr Export kCommon[] = {
    {"crc32c", Guarded<vioctl::common::Crc32c>},
    {"crc32cTable", Guarded<vioctl::common::Crc32cTable>},
    {"crc32cEngine", Guarded<vioctl::common::Crc32cEngine>},
    {"eventfd", Guarded<vioctl::common::Eventfd>},
    {"signalEventfd", Guarded<vioctl::common::Signal>},
    {"watchEventfd", Guarded<vioctl::WatchEventfd>},
    {"sdNotify", Guarded<vioctl::common::Notify>},
    {"pageSize", Guarded<vioctl::common::PageSize>},
    {"exitNow", Guarded<vioctl::common::ExitNow>},
};

constexpr Export kUring[] = {
    {"open", Guarded<vioctl::uring::js::Open>},
    {"info", Guarded<vioctl::uring::js::Info>},
    {"submit", Guarded<vioctl::uring::js::Submit>},
    {"watch", Guarded<vioctl::uring::js::Watch>},
    {"register", Guarded<vioctl::uring::js::Register>},
    {"enable", Guarded<vioctl::uring::js::Enable>},
    {"close", Guarded<vioctl::uring::js::Close>},
    {"setup", Guarded<vioctl::uring::js::TrySetup>},
    {"registerRaw", Guarded<vioctl::uring::js::RegisterRaw>},
    {"addressOf", Guarded<vioctl::uring::js::AddressOf>},
    {"checkFds", Guarded<vioctl::uring::js::CheckFds>},
    {"syncfs", Guarded<vioctl::uring::js::SyncFs>},
    {"digestSize", Guarded<vioctl::uring::js::DigestSize>},
    {"digestNew", Guarded<vioctl::uring::js::DigestNew>},
    {"digestUpdate", Guarded<vioctl::uring::js::DigestUpdate>},
    {"digestFinish", Guarded<vioctl::uring::js::DigestFinish>},
    {"bulkOpen", Guarded<vioctl::uring::js::BulkOpen>},
    {"bulkPush", Guarded<vioctl::uring::js::BulkPush>},
    {"bulkTake", Guarded<vioctl::uring::js::BulkTake>},
    {"bulkStats", Guarded<vioctl::uring::js::BulkStats>},
    {"bulkClose", Guarded<vioctl::uring::js::BulkClose>},
};

constexpr Export kNvmeHost[] = {
    {"loadRun", Guarded<vioctl::nvme::LoadRun>},
};

constexpr Export kStorage[] = {
    {"open", Guarded<vioctl::storage::JsOpen>},           {"ram", Guarded<vioctl::storage::JsRam>},
    {"size", Guarded<vioctl::storage::JsSize>},           {"geometry", Guarded<vioctl::storage::JsGeometry>},
    {"identity", Guarded<vioctl::storage::JsIdentity>},   {"refresh", Guarded<vioctl::storage::JsRefresh>},
    {"peek", Guarded<vioctl::storage::JsPeek>},           {"flush", Guarded<vioctl::storage::JsFlush>},
    {"syncError", Guarded<vioctl::storage::JsSyncError>}, {"reopen", Guarded<vioctl::storage::JsReopen>},
    {"close", Guarded<vioctl::storage::JsClose>},
};

constexpr Export kNvme[] = {
    {"namespaceRelease", Guarded<vioctl::nvme::NamespaceRelease>},
    {"namespaceNew", Guarded<vioctl::nvme::NamespaceNew>},
    {"namespaceResize", Guarded<vioctl::nvme::NamespaceResize>},
    {"controllerNew", Guarded<vioctl::nvme::ControllerNew>},
    {"controllerReady", Guarded<vioctl::nvme::ControllerReady>},
    {"controllerWriteCache", Guarded<vioctl::nvme::ControllerWriteCache>},
    {"controllerNamespaces", Guarded<vioctl::nvme::ControllerNamespaces>},
    {"controllerIdle", Guarded<vioctl::nvme::ControllerIdle>},
    {"controllerStats", Guarded<vioctl::nvme::ControllerStats>},
    {"targetStart", Guarded<vioctl::nvme::TargetStart>},
    {"targetListen", Guarded<vioctl::nvme::TargetListen>},
    {"targetSetup", Guarded<vioctl::nvme::TargetSetup>},
    {"targetComplete", Guarded<vioctl::nvme::TargetComplete>},
    {"targetClose", Guarded<vioctl::nvme::TargetClose>},
    {"targetConnections", Guarded<vioctl::nvme::TargetConnections>},
    {"targetAskSource", Guarded<vioctl::nvme::TargetAskSource>},
    {"targetEngine", Guarded<vioctl::nvme::TargetEngine>},
    {"targetStop", Guarded<vioctl::nvme::TargetStop>},
};

constexpr Export kVhostUser[] = {
    {"connect", Guarded<vioctl::vhost_user::JsConnect>},
    {"listen", Guarded<vioctl::vhost_user::JsListen>},
    {"accept", Guarded<vioctl::vhost_user::JsAccept>},
    {"socketPair", Guarded<vioctl::vhost_user::JsPair>},
    {"peer", Guarded<vioctl::vhost_user::JsPeer>},
    {"send", Guarded<vioctl::vhost_user::JsSend>},
    {"receive", Guarded<vioctl::vhost_user::JsReceive>},
    {"watchReadable", Guarded<vioctl::vhost_user::JsWatch>},
    {"unixSockets", Guarded<vioctl::vhost_user::JsSockets>},
    {"memfd", Guarded<vioctl::vhost_user::JsMemfd>},
    {"seals", Guarded<vioctl::vhost_user::JsSeals>},
    {"addSeals", Guarded<vioctl::vhost_user::JsAddSeals>},
    {"fdFlags", Guarded<vioctl::vhost_user::JsFdFlags>},
    {"dup", Guarded<vioctl::vhost_user::JsDup>},
    {"tryMap", Guarded<vioctl::vhost_user::JsTryMap>},
    {"lock", Guarded<vioctl::vhost_user::JsLock>},
    {"signal", Guarded<vioctl::vhost_user::JsSignal>},
    {"guestMemory", Guarded<vioctl::vhost_user::JsMemory>},
    {"inflightBytes", Guarded<vioctl::vhost_user::JsInflightBytes>},
    {"inflightRegion", Guarded<vioctl::vhost_user::JsInflight>},
    {"dirtyLog", Guarded<vioctl::vhost_user::JsDirtyLog>},
    {"virtqueue", Guarded<vioctl::vhost_user::JsQueue>},
    {"blkQueue", Guarded<vioctl::vhost_user::JsBlkQueue>},
};

constexpr Export kMigration[] = {
    {"openSource", Guarded<vioctl::migration::OpenSource>},
    {"pipe", Guarded<vioctl::migration::NewPipe>},
    {"seekFd", Guarded<vioctl::migration::SeekFd>},
    {"allocate", Guarded<vioctl::migration::Allocate>},
    {"setNonblocking", Guarded<vioctl::migration::SetNonblocking>},
    {"sourceState", Guarded<vioctl::migration::SourceState>},
    {"read", Guarded<vioctl::migration::Read>},
    {"peek", Guarded<vioctl::migration::Peek>},
    {"nextNumber", Guarded<vioctl::migration::NextNumber>},
    {"position", Guarded<vioctl::migration::Position>},
    {"sourceSize", Guarded<vioctl::migration::SourceSize>},
    {"skip", Guarded<vioctl::migration::Skip>},
    {"seek", Guarded<vioctl::migration::Seek>},
    {"setLimit", Guarded<vioctl::migration::SetLimit>},
    {"findFooter", Guarded<vioctl::migration::FindFooter>},
    {"newRam", Guarded<vioctl::migration::NewRam>},
    {"addBlock", Guarded<vioctl::migration::AddBlock>},
    {"stepRam", Guarded<vioctl::migration::StepRam>},
    {"readBitmap", Guarded<vioctl::migration::ReadBitmap>},
    {"mappedPages", Guarded<vioctl::migration::MappedPages>},
    {"settleBitmap", Guarded<vioctl::migration::SettleBitmap>},
    {"cutMapped", Guarded<vioctl::migration::CutMapped>},
    {"extractTo", Guarded<vioctl::migration::ExtractTo>},
    {"blockStates", Guarded<vioctl::migration::BlockStates>},
    {"pageRuns", Guarded<vioctl::migration::PageRuns>},
    {"pageHashes", Guarded<vioctl::migration::PageHashes>},
    {"ramIssues", Guarded<vioctl::migration::RamIssues>},
};

constexpr Export kSysfs[] = {
    {"startWrite", Guarded<vioctl::sysfs::JsStartWrite>},
    {"readAll", Guarded<vioctl::sysfs::JsReadAll>},
    {"routes", Guarded<vioctl::sysfs::JsRoutes>},
    {"descriptors", Guarded<vioctl::sysfs::JsDescriptors>},
};

constexpr Export kIova[] = {
    {"create", Guarded<vioctl::iova::Create>},   {"run", Guarded<vioctl::iova::Run>},
    {"ranges", Guarded<vioctl::iova::Ranges>},   {"mappings", Guarded<vioctl::iova::Mappings>},
    {"measure", Guarded<vioctl::iova::Measure>},
};

constexpr Export kVfio[] = {
    {"openGroup", Guarded<vioctl::vfio::JsOpenGroup>},
    {"openDevice", Guarded<vioctl::vfio::JsOpenDevice>},
    {"adopt", Guarded<vioctl::vfio::JsAdopt>},
    {"close", Guarded<vioctl::vfio::JsClose>},
    {"info", Guarded<vioctl::vfio::JsInfo>},
    {"available", Guarded<vioctl::vfio::JsAvailable>},
    {"region", Guarded<vioctl::vfio::JsRegion>},
    {"irq", Guarded<vioctl::vfio::JsIrq>},
    {"read", Guarded<vioctl::vfio::JsRead>},
    {"write", Guarded<vioctl::vfio::JsWrite>},
    {"load", Guarded<vioctl::vfio::JsLoad>},
    {"store", Guarded<vioctl::vfio::JsStore>},
    {"mapRegion", Guarded<vioctl::vfio::JsMapRegion>},
    {"mapDma", Guarded<vioctl::vfio::JsMapDma>},
    {"unmapDma", Guarded<vioctl::vfio::JsUnmapDma>},
    {"enableIrq", Guarded<vioctl::vfio::JsEnableIrq>},
    {"disableIrq", Guarded<vioctl::vfio::JsDisableIrq>},
    {"maskIrq", Guarded<vioctl::vfio::JsMaskIrq>},
    {"reset", Guarded<vioctl::vfio::JsReset>},
    {"resetPeers", Guarded<vioctl::vfio::JsResetPeers>},
    {"hotReset", Guarded<vioctl::vfio::JsHotReset>},
    {"newMemory", Guarded<vioctl::vfio::JsNewMemory>},
    {"fileMemory", Guarded<vioctl::vfio::JsFileMemory>},
    {"populate", Guarded<vioctl::vfio::JsPopulate>},
    {"memoryInfo", Guarded<vioctl::vfio::JsMemoryInfo>},
    {"readMemory", Guarded<vioctl::vfio::JsReadMemory>},
    {"writeMemory", Guarded<vioctl::vfio::JsWriteMemory>},
    {"closeMemory", Guarded<vioctl::vfio::JsCloseMemory>},
    {"chain", Guarded<vioctl::vfio::JsChain>},
    {"memlock", Guarded<vioctl::vfio::JsMemlock>},
    {"setMemlock", Guarded<vioctl::vfio::JsSetMemlock>},
    {"exec", Guarded<vioctl::vfio::JsExec>},
};

template <size_t Count>
Napi::Object Table(Napi::Env env, const Export (&table)[Count]) {
  Napi::Object object = Napi::Object::New(env);
  for (const Export& entry : table) object.Set(entry.name, Napi::Function::New(env, entry.method, entry.name));
  return object;
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("common", Table(env, kCommon));
  exports.Set("uring", Table(env, kUring));
  exports.Set("storage", Table(env, kStorage));
  exports.Set("nvme", Table(env, kNvme));
  exports.Set("nvmeHost", Table(env, kNvmeHost));
  exports.Set("vhostUser", Table(env, kVhostUser));
  exports.Set("migration", Table(env, kMigration));
  exports.Set("sysfs", Table(env, kSysfs));
  exports.Set("iova", Table(env, kIova));
  exports.Set("vfio", Table(env, kVfio));
  return exports;
}

}  // namespace

NODE_API_MODULE(vioctl, Init)
