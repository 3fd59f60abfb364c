// The only file that names what JavaScript sees. Each domain is one object of the exports; src/native/<domain>.ts
// holds its typed interface, and a test compares the two.
#include <napi.h>

#include "binding/common.h"
#include "binding/core/call.h"
#include "binding/core/watch.h"
#include "binding/iova.h"
#include "binding/migration.h"
#include "binding/nvme.h"
#include "binding/nvme/auth.h"
#include "binding/nvme/authenticator.h"
#include "binding/nvme/host.h"
#include "binding/nvme/lone_queue.h"
#include "binding/nvme/namespace.h"
#include "binding/storage.h"
#include "binding/storage/sources.h"
#include "binding/sysfs.h"
#include "binding/uring.h"
#include "binding/vfio.h"
#include "binding/vhost_user.h"

namespace {

using vioctl::Guarded;
using vioctl::Maybe;
using K = vioctl::Kind;

struct Export {
  const char* name;
  Napi::Value (*method)(const Napi::CallbackInfo&);
};

constexpr Export kCommon[] = {
    {"crc32c", Guarded<vioctl::common::Crc32c, K::kBytes, Maybe(K::kUint32)>},
    {"crc32cTable", Guarded<vioctl::common::Crc32cTable, K::kBytes, Maybe(K::kUint32)>},
    {"crc32cEngine", Guarded<vioctl::common::Crc32cEngine>},
    {"eventfd", Guarded<vioctl::common::Eventfd>},
    {"signalEventfd", Guarded<vioctl::common::Signal, K::kInt32, K::kUint64>},
    {"watchEventfd", Guarded<vioctl::WatchEventfd, K::kInt32, K::kFunction>},
    {"sdNotify", Guarded<vioctl::common::Notify, K::kPath, K::kText, Maybe(K::kArray)>},
    {"tcpListen", Guarded<vioctl::common::TcpListen, K::kPath, K::kUint32, K::kBoolean>},
    {"tcpListener", Guarded<vioctl::common::TcpListener, K::kInt32>},
    {"tcpShutdown", Guarded<vioctl::common::TcpShutdown, K::kInt32>},
    {"pageSize", Guarded<vioctl::common::PageSize>},
    {"lastWords", Guarded<vioctl::common::LastWords, K::kText, K::kPath, K::kBoolean>},
    {"exitNow", Guarded<vioctl::common::ExitNow, K::kInt32>},
    {"secret", Guarded<vioctl::common::Secret, K::kUint32>},
};

constexpr Export kUring[] = {
    {"open", Guarded<vioctl::uring::js::Open, K::kObject>},
    {"info", Guarded<vioctl::uring::js::Info, K::kHandle>},
    {"submit", Guarded<vioctl::uring::js::Submit, K::kHandle, K::kUint32, K::kUint32, Maybe(K::kNumber)>},
    {"watch", Guarded<vioctl::uring::js::Watch, K::kHandle, K::kFunction>},
    {"register", Guarded<vioctl::uring::js::Register, K::kHandle, K::kUint32, Maybe(K::kBytes), K::kUint32>},
    {"enable", Guarded<vioctl::uring::js::Enable, K::kHandle>},
    {"close", Guarded<vioctl::uring::js::Close, K::kHandle>},
    {"setup", Guarded<vioctl::uring::js::TrySetup, K::kUint32, K::kUint32, K::kUint32>},
    {"registerRaw", Guarded<vioctl::uring::js::RegisterRaw, K::kInt32, K::kUint32, Maybe(K::kBytes), K::kUint32>},
    {"addressOf", Guarded<vioctl::uring::js::AddressOf, K::kBytes>},
    {"checkFds", Guarded<vioctl::uring::js::CheckFds, K::kInt32s>},
    {"syncfs", Guarded<vioctl::uring::js::SyncFs, K::kInt32>},
    {"pour", Guarded<vioctl::uring::js::JsPour, K::kInt32, K::kInt32, K::kUint64, K::kUint64>},
    {"digestSize", Guarded<vioctl::uring::js::DigestSize, K::kText>},
    {"digestNew", Guarded<vioctl::uring::js::DigestNew, K::kText>},
    {"digestUpdate", Guarded<vioctl::uring::js::DigestUpdate, K::kHandle, K::kBytes>},
    {"digestFinish", Guarded<vioctl::uring::js::DigestFinish, K::kHandle>},
    {"bulkOpen", Guarded<vioctl::uring::js::BulkOpen, K::kObject, K::kFunction>},
    {"bulkPush", Guarded<vioctl::uring::js::BulkPush, K::kHandle, K::kBytes, K::kUint32>},
    {"bulkTake", Guarded<vioctl::uring::js::BulkTake, K::kHandle, K::kBytes>},
    {"bulkStats", Guarded<vioctl::uring::js::BulkStats, K::kHandle>},
    {"bulkClose", Guarded<vioctl::uring::js::BulkClose, K::kHandle>},
};

constexpr Export kNvmeHost[] = {
    {"loadRun", Guarded<vioctl::nvme::host::LoadRun, K::kObject>},
    {"authenticatorNew", Guarded<vioctl::nvme::host::JsAuthenticatorNew>},
    {"authenticatorNext", Guarded<vioctl::nvme::host::JsAuthenticatorNext, K::kHandle>},
    {"authenticatorClose", Guarded<vioctl::nvme::host::JsAuthenticatorClose, K::kHandle>},
    {"tlsClient", Guarded<vioctl::nvme::TlsClient, K::kText, K::kBytes>},
    {"tlsServer", Guarded<vioctl::nvme::TlsServer, K::kText, K::kBytes>},
    {"tlsTake", Guarded<vioctl::nvme::TlsTake, K::kHandle, K::kBytes>},
    {"tlsPut", Guarded<vioctl::nvme::TlsPut, K::kHandle, K::kBytes>},
    {"queueOpen", Guarded<vioctl::nvme::host::JsQueueOpen, K::kObject>},
    {"queueRun", Guarded<vioctl::nvme::host::JsQueueRun, K::kHandle, K::kObject>},
    {"queueOver", Guarded<vioctl::nvme::host::JsQueueOver, K::kHandle>},
    {"queueClose", Guarded<vioctl::nvme::host::JsQueueClose, K::kHandle>},
    {"hostOpen", Guarded<vioctl::nvme::host::JsHostOpen, K::kObject>},
    {"hostSource", Guarded<vioctl::nvme::host::JsHostSource, K::kObject>},
    {"hostStamp", Guarded<vioctl::nvme::host::JsHostStamp>},
    {"hostHops", Guarded<vioctl::nvme::host::JsHostHops, K::kHandle>},
    {"hostPaths", Guarded<vioctl::nvme::host::JsHostPaths, K::kHandle, Maybe(K::kArray)>},
    {"hostFacts", Guarded<vioctl::nvme::host::JsHostFacts, K::kHandle>},
    {"hostCopy", Guarded<vioctl::nvme::host::JsHostCopy, K::kHandle, K::kObject>},
    {"hostClose", Guarded<vioctl::nvme::host::JsHostClose, K::kHandle>},
};

constexpr Export kStorage[] = {
    {"open", Guarded<vioctl::storage::JsOpen, K::kPath, K::kObject>},
    {"openLater", Guarded<vioctl::storage::JsOpenLater, K::kArray>},
    {"reach", Guarded<vioctl::storage::JsReach, K::kArray>},
    {"openNbd", Guarded<vioctl::storage::JsOpenNbd, K::kObject>},
    {"openRbd", Guarded<vioctl::storage::JsOpenRbd, K::kObject>},
    {"ram", Guarded<vioctl::storage::JsRam, K::kUint64>},
    {"size", Guarded<vioctl::storage::JsSize, K::kHandle>},
    {"geometry", Guarded<vioctl::storage::JsGeometry, K::kHandle>},
    {"identity", Guarded<vioctl::storage::JsIdentity, K::kHandle>},
    {"refresh", Guarded<vioctl::storage::JsRefresh, K::kHandle>},
    {"measure", Guarded<vioctl::storage::JsMeasure, K::kHandle>},
    {"peek", Guarded<vioctl::storage::JsPeek, K::kHandle, K::kArray>},
    {"peekLater", Guarded<vioctl::storage::JsPeekLater, K::kHandle, K::kArray>},
    {"news", Guarded<vioctl::storage::JsNews, K::kHandle>},
    {"lastingName", Guarded<vioctl::storage::JsLastingName, K::kHandle>},
    {"flush", Guarded<vioctl::storage::JsFlush, K::kHandle>},
    {"ringRefusal", Guarded<vioctl::storage::JsRingRefusal>},
    {"farewells", Guarded<vioctl::storage::JsFarewells, K::kUint32>},
    {"bufferRefusal", Guarded<vioctl::storage::JsBufferRefusal>},
    {"syncError", Guarded<vioctl::storage::JsSyncError, K::kHandle>},
    {"failures", Guarded<vioctl::storage::JsFailures, K::kHandle>},
    {"setLimits", Guarded<vioctl::storage::JsSetLimits, K::kHandle, K::kObject>},
    {"limits", Guarded<vioctl::storage::JsLimits, K::kHandle>},
    {"claim", Guarded<vioctl::storage::JsClaim, K::kHandle>},
    {"release", Guarded<vioctl::storage::JsRelease, K::kHandle>},
    {"reopen", Guarded<vioctl::storage::JsReopen, K::kHandle>},
    {"close", Guarded<vioctl::storage::JsClose, K::kHandle>},
};

constexpr Export kNvme[] = {
    {"namespaceRelease", Guarded<vioctl::nvme::NamespaceRelease, K::kHandle>},
    {"namespaceNew", Guarded<vioctl::nvme::NamespaceNew, K::kHandle, K::kUint32, K::kBoolean>},
    {"namespaceResize", Guarded<vioctl::nvme::NamespaceResize, K::kHandle, K::kUint64>},
    {"namespaceUsage", Guarded<vioctl::nvme::NamespaceUsage, K::kHandle>},
    {"controllerNew", Guarded<vioctl::nvme::ControllerNew>},
    {"controllerReady", Guarded<vioctl::nvme::ControllerReady, K::kHandle, K::kBoolean>},
    {"controllerWriteCache", Guarded<vioctl::nvme::ControllerWriteCache, K::kHandle, K::kBoolean>},
    {"controllerNamespaces", Guarded<vioctl::nvme::ControllerNamespaces, K::kHandle, K::kArray>},
    {"controllerRunning", Guarded<vioctl::nvme::ControllerRunning, K::kHandle>},
    {"controllerIdle", Guarded<vioctl::nvme::ControllerIdle, K::kHandle>},
    {"controllerStats", Guarded<vioctl::nvme::ControllerStats, K::kHandle>},
    {"controllerBudget", Guarded<vioctl::nvme::ControllerBudget, K::kHandle, K::kHandle>},
    {"budgetNew", Guarded<vioctl::nvme::BudgetNew>},
    {"budgetLimit", Guarded<vioctl::nvme::BudgetLimit, K::kHandle, K::kUint64>},
    {"controllerQueues", Guarded<vioctl::nvme::ControllerQueues, K::kHandle>},
    {"targetStart", Guarded<vioctl::nvme::TargetStart, K::kObject, K::kFunction>},
    {"targetListen", Guarded<vioctl::nvme::TargetListen, K::kHandle, K::kPath, K::kUint32, K::kBoolean>},
    {"targetUnlisten", Guarded<vioctl::nvme::TargetUnlisten, K::kHandle, K::kUint32>},
    {"targetMaxConnections", Guarded<vioctl::nvme::TargetMaxConnections, K::kHandle, K::kUint32>},
    {"targetListenFd", Guarded<vioctl::nvme::TargetListenFd, K::kHandle, K::kInt32, K::kUint32>},
    {"targetTls", Guarded<vioctl::nvme::TargetTls, K::kHandle, K::kUint32, K::kUint32>},
    {"targetSetup", Guarded<vioctl::nvme::TargetSetup, K::kHandle, K::kUint32, K::kUint32, K::kUint32, K::kBoolean,
                            K::kHandle, K::kBoolean>},
    {"targetComplete", Guarded<vioctl::nvme::TargetComplete, K::kHandle, K::kArray>},
    {"targetClose", Guarded<vioctl::nvme::TargetClose, K::kHandle, K::kUint32>},
    {"targetConnections", Guarded<vioctl::nvme::TargetConnections, K::kHandle>},
    {"targetRenew", Guarded<vioctl::nvme::TargetRenew, K::kHandle>},
    {"targetEngine", Guarded<vioctl::nvme::TargetEngine, K::kHandle>},
    {"targetStop", Guarded<vioctl::nvme::TargetStop, K::kHandle>},
    {"targetKey", Guarded<vioctl::nvme::TargetKey, K::kHandle, K::kUint32, K::kText, K::kBytes>},
    {"targetUnlock", Guarded<vioctl::nvme::TargetUnlock, K::kHandle, K::kUint32>},
    {"dhPower", Guarded<vioctl::nvme::DhPower, K::kBytes, K::kBytes, K::kBytes>},
};

constexpr Export kVhostUser[] = {
    {"connect", Guarded<vioctl::vhost_user::JsConnect, K::kPath>},
    {"listen", Guarded<vioctl::vhost_user::JsListen, K::kPath, K::kInt32, K::kUint32, K::kUint32, K::kUint32>},
    {"accept", Guarded<vioctl::vhost_user::JsAccept, K::kInt32>},
    {"socketPair", Guarded<vioctl::vhost_user::JsPair>},
    {"listenerPath", Guarded<vioctl::vhost_user::JsListenerPath, K::kInt32>},
    {"peer", Guarded<vioctl::vhost_user::JsPeer, K::kInt32>},
    {"send", Guarded<vioctl::vhost_user::JsSend, K::kInt32, K::kBytes, K::kArray>},
    {"receive", Guarded<vioctl::vhost_user::JsReceive, K::kInt32, K::kBytes, K::kArray>},
    {"watchReadable", Guarded<vioctl::vhost_user::JsWatch, K::kInt32, K::kFunction>},
    {"unixSockets", Guarded<vioctl::vhost_user::JsSockets>},
    {"memfd", Guarded<vioctl::vhost_user::JsMemfd, K::kPath, K::kUint64, K::kInt32>},
    {"seals", Guarded<vioctl::vhost_user::JsSeals, K::kInt32>},
    {"addSeals", Guarded<vioctl::vhost_user::JsAddSeals, K::kInt32, K::kInt32>},
    {"fdFlags", Guarded<vioctl::vhost_user::JsFdFlags, K::kInt32>},
    {"dup", Guarded<vioctl::vhost_user::JsDup, K::kInt32>},
    {"tryMap", Guarded<vioctl::vhost_user::JsTryMap, K::kInt32, K::kUint64, K::kUint64, K::kBoolean>},
    {"lock", Guarded<vioctl::vhost_user::JsLock, K::kInt32, K::kBoolean>},
    {"signal", Guarded<vioctl::vhost_user::JsSignal, K::kInt32>},
    {"guestMemory", Guarded<vioctl::vhost_user::JsMemory, K::kArray, K::kArray>},
    {"inflightBytes", Guarded<vioctl::vhost_user::JsInflightBytes, K::kUint32>},
    {"inflightRegion",
     Guarded<vioctl::vhost_user::JsInflight, K::kInt32, K::kUint64, K::kUint64, K::kUint32, K::kUint32>},
    {"dirtyLog", Guarded<vioctl::vhost_user::JsDirtyLog, K::kInt32, K::kUint64, K::kUint64>},
    {"virtqueue", Guarded<vioctl::vhost_user::JsQueue, K::kObject, K::kObject>},
    {"blkQueue", Guarded<vioctl::vhost_user::JsBlkQueue, K::kHandle, K::kObject, K::kObject, K::kObject>},
};

constexpr Export kMigration[] = {
    {"openSource", Guarded<vioctl::migration::OpenSource, K::kObject>},
    {"pipe", Guarded<vioctl::migration::NewPipe>},
    {"seekFd", Guarded<vioctl::migration::SeekFd, K::kInt32, K::kUint64>},
    {"allocate", Guarded<vioctl::migration::Allocate, K::kInt32, K::kUint64>},
    {"setNonblocking", Guarded<vioctl::migration::SetNonblocking, K::kInt32>},
    {"sourceState", Guarded<vioctl::migration::SourceState, K::kHandle>},
    {"read", Guarded<vioctl::migration::Read, K::kHandle, K::kUint64>},
    {"peek", Guarded<vioctl::migration::Peek, K::kHandle, K::kUint64>},
    {"nextNumber", Guarded<vioctl::migration::NextNumber, K::kHandle, K::kUint32, K::kBoolean>},
    {"position", Guarded<vioctl::migration::Position, K::kHandle>},
    {"sourceSize", Guarded<vioctl::migration::SourceSize, K::kHandle>},
    {"skip", Guarded<vioctl::migration::Skip, K::kHandle, K::kUint64>},
    {"seek", Guarded<vioctl::migration::Seek, K::kHandle, K::kUint64>},
    {"setLimit", Guarded<vioctl::migration::SetLimit, K::kHandle, K::kInteger>},
    {"findFooter", Guarded<vioctl::migration::FindFooter, K::kHandle, K::kUint32, K::kUint64>},
    {"newRam", Guarded<vioctl::migration::NewRam, K::kObject>},
    {"addBlock", Guarded<vioctl::migration::AddBlock, K::kHandle, K::kText, K::kUint64>},
    {"stepRam", Guarded<vioctl::migration::StepRam, K::kHandle, K::kHandle, K::kUint64>},
    {"readBitmap", Guarded<vioctl::migration::ReadBitmap, K::kHandle, K::kHandle, K::kUint32, K::kText>},
    {"mappedPages", Guarded<vioctl::migration::MappedPages, K::kHandle, K::kHandle, K::kUint32, K::kUint64, K::kUint64,
                            K::kUint64, K::kInt32>},
    {"settleBitmap", Guarded<vioctl::migration::SettleBitmap, K::kHandle, K::kUint32>},
    {"cutMapped", Guarded<vioctl::migration::CutMapped, K::kHandle, K::kUint32, K::kUint64>},
    {"extractTo", Guarded<vioctl::migration::ExtractTo, K::kHandle, K::kInt32, K::kInt64s>},
    {"blockStates", Guarded<vioctl::migration::BlockStates, K::kHandle>},
    {"pageRuns", Guarded<vioctl::migration::PageRuns, K::kHandle, K::kUint32, K::kText, K::kUint64, K::kUint64>},
    {"pageHashes", Guarded<vioctl::migration::PageHashes, K::kHandle, K::kUint32>},
    {"ramIssues", Guarded<vioctl::migration::RamIssues, K::kHandle>},
};

constexpr Export kSysfs[] = {
    {"startWrite", Guarded<vioctl::sysfs::JsStartWrite, K::kPath, K::kText>},
    {"readAll", Guarded<vioctl::sysfs::JsReadAll, K::kArray, K::kInt32>},
    {"readFolders", Guarded<vioctl::sysfs::JsReadFolders, K::kPath, K::kArray, K::kArray, K::kArray, K::kArray>},
    {"routes", Guarded<vioctl::sysfs::JsRoutes>},
    {"xdpPrograms", Guarded<vioctl::sysfs::JsXdpPrograms>},
    {"xdpSockets", Guarded<vioctl::sysfs::JsXdpSockets>},
    {"wireguardPeers", Guarded<vioctl::sysfs::JsWireguardPeers>},
    {"descriptors", Guarded<vioctl::sysfs::JsDescriptors>},
};

constexpr Export kIova[] = {
    {"create", Guarded<vioctl::iova::Create, K::kUint64s, K::kUint64s, K::kUint64, K::kUint64>},
    {"run", Guarded<vioctl::iova::Run, K::kHandle, K::kUint64s, K::kUint64s>},
    {"ranges", Guarded<vioctl::iova::Ranges, K::kHandle>},
    {"mappings", Guarded<vioctl::iova::Mappings, K::kHandle>},
    {"measure", Guarded<vioctl::iova::Measure, K::kHandle>},
};

constexpr Export kVfio[] = {
    {"openGroup", Guarded<vioctl::vfio::JsOpenGroup, K::kPath, K::kPath, K::kPath, K::kBoolean, Maybe(K::kHandle)>},
    {"openDevice", Guarded<vioctl::vfio::JsOpenDevice, K::kPath, K::kPath, Maybe(K::kHandle), Maybe(K::kBytes)>},
    {"adopt", Guarded<vioctl::vfio::JsAdopt, K::kInt32, K::kInt32, K::kInt32, K::kUint32>},
    {"close", Guarded<vioctl::vfio::JsClose, K::kHandle>},
    {"info", Guarded<vioctl::vfio::JsInfo, K::kHandle>},
    {"available", Guarded<vioctl::vfio::JsAvailable, K::kHandle>},
    {"region", Guarded<vioctl::vfio::JsRegion, K::kHandle, K::kUint32>},
    {"irq", Guarded<vioctl::vfio::JsIrq, K::kHandle, K::kUint32>},
    {"read", Guarded<vioctl::vfio::JsRead, K::kHandle, K::kUint32, K::kUint64, K::kBytes>},
    {"write", Guarded<vioctl::vfio::JsWrite, K::kHandle, K::kUint32, K::kUint64, K::kBytes>},
    {"load", Guarded<vioctl::vfio::JsLoad, K::kHandle, K::kUint32, K::kUint64, K::kUint32>},
    {"store", Guarded<vioctl::vfio::JsStore, K::kHandle, K::kUint32, K::kUint64, K::kUint32, K::kUint64>},
    {"mapRegion", Guarded<vioctl::vfio::JsMapRegion, K::kHandle, K::kUint32>},
    {"mapDma", Guarded<vioctl::vfio::JsMapDma, K::kHandle, K::kUint64s>},
    {"unmapDma", Guarded<vioctl::vfio::JsUnmapDma, K::kHandle, K::kUint64, K::kUint64>},
    {"enableIrq", Guarded<vioctl::vfio::JsEnableIrq, K::kHandle, K::kUint32, K::kUint32, K::kUint32>},
    {"disableIrq", Guarded<vioctl::vfio::JsDisableIrq, K::kHandle, K::kUint32>},
    {"maskIrq", Guarded<vioctl::vfio::JsMaskIrq, K::kHandle, K::kUint32, K::kBoolean>},
    {"setVfToken", Guarded<vioctl::vfio::JsSetVfToken, K::kHandle, K::kBytes>},
    {"reset", Guarded<vioctl::vfio::JsReset, K::kHandle>},
    {"resetPeers", Guarded<vioctl::vfio::JsResetPeers, K::kHandle>},
    {"hotReset", Guarded<vioctl::vfio::JsHotReset, K::kHandle, K::kArray>},
    {"newMemory", Guarded<vioctl::vfio::JsNewMemory, K::kPath, K::kUint64, K::kUint64, K::kUint64, K::kUint64>},
    {"fileMemory", Guarded<vioctl::vfio::JsFileMemory, K::kPath, K::kUint64, K::kBoolean, K::kUint64, K::kUint64>},
    {"populate", Guarded<vioctl::vfio::JsPopulate, K::kHandle, K::kUint64, K::kUint64, K::kBoolean>},
    {"memoryInfo", Guarded<vioctl::vfio::JsMemoryInfo, K::kHandle>},
    {"loadMemory", Guarded<vioctl::vfio::JsLoadMemory, K::kHandle, K::kUint64, K::kUint32>},
    {"readMemory", Guarded<vioctl::vfio::JsReadMemory, K::kHandle, K::kUint64, K::kBytes>},
    {"writeMemory", Guarded<vioctl::vfio::JsWriteMemory, K::kHandle, K::kUint64, K::kBytes>},
    {"closeMemory", Guarded<vioctl::vfio::JsCloseMemory, K::kHandle>},
    {"chain", Guarded<vioctl::vfio::JsChain, K::kBytes, K::kUint32, K::kUint32>},
    {"memlock", Guarded<vioctl::vfio::JsMemlock>},
    {"setMemlock", Guarded<vioctl::vfio::JsSetMemlock, K::kNumber>},
    {"exec", Guarded<vioctl::vfio::JsExec, K::kPath, K::kArray, K::kArray, K::kArray, Maybe(K::kObject)>},
};

struct Domain {
  const char* name;
  const Export* first;
  size_t count;
};

template <size_t Count>
constexpr Domain Of(const char* name, const Export (&table)[Count]) {
  return {name, table, Count};
}

constexpr Domain kDomains[] = {
    Of("common", kCommon),     Of("uring", kUring),         Of("storage", kStorage),     Of("nvme", kNvme),
    Of("nvmeHost", kNvmeHost), Of("vhostUser", kVhostUser), Of("migration", kMigration), Of("sysfs", kSysfs),
    Of("iova", kIova),         Of("vfio", kVfio),
};

// The object of a domain, made when it is first asked for: a command uses one or two, and functions are slow to make.
Napi::Value Made(const Napi::CallbackInfo& info) {
  const auto& domain = *static_cast<const Domain*>(info.Data());
  const Napi::Env env = info.Env();
  Napi::Object object = Napi::Object::New(env);
  for (size_t i = 0; i < domain.count; ++i) {
    const Export& entry = domain.first[i];
    object.Set(entry.name, Napi::Function::New(env, entry.method, entry.name));
  }
  constexpr auto kPlain = static_cast<napi_property_attributes>(napi_writable | napi_enumerable | napi_configurable);
  info.This().As<Napi::Object>().DefineProperty(Napi::PropertyDescriptor::Value(domain.name, object, kPlain));
  return object;
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  (void)env;
  constexpr auto kReplaced = static_cast<napi_property_attributes>(napi_enumerable | napi_configurable);
  for (const Domain& domain : kDomains)
    exports.DefineProperty(
        Napi::PropertyDescriptor::Accessor<Made>(domain.name, kReplaced, const_cast<Domain*>(&domain)));
  return exports;
}

}  // namespace

NODE_API_MODULE(vioctl, Init)
