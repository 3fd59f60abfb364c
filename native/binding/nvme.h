// Exports of native/nvme. Handles are externals; src/native/nvme.ts gives them their types.
#pragma once
#include <napi.h>

namespace vioctl::nvme {

// namespaceRelease(namespace): the handle is void; its store is closed once no command uses it
Napi::Value NamespaceRelease(const Napi::CallbackInfo& info);

Napi::Value NamespaceNew(const Napi::CallbackInfo& info);     // namespaceNew(store, shift, readonly): namespace
Napi::Value NamespaceResize(const Napi::CallbackInfo& info);  // namespaceResize(namespace, blocks)

Napi::Value NamespaceUsage(const Napi::CallbackInfo& info);  // namespaceUsage(namespace): counters, latencies

Napi::Value BudgetNew(const Napi::CallbackInfo& info);         // budgetNew(): budget
Napi::Value BudgetLimit(const Napi::CallbackInfo& info);       // budgetLimit(budget, bytes): 0 is none
Napi::Value ControllerBudget(const Napi::CallbackInfo& info);  // controllerBudget(controller, budget), once

Napi::Value ControllerNew(const Napi::CallbackInfo& info);         // controllerNew(): controller
Napi::Value ControllerReady(const Napi::CallbackInfo& info);       // controllerReady(controller, ready)
Napi::Value ControllerWriteCache(const Napi::CallbackInfo& info);  // controllerWriteCache(controller, on)
Napi::Value ControllerNamespaces(
    const Napi::CallbackInfo& info);                            // controllerNamespaces(controller, [nsid, ns, gate][])
Napi::Value ControllerRunning(const Napi::CallbackInfo& info);  // controllerRunning(controller): commands
Napi::Value ControllerIdle(const Napi::CallbackInfo& info);     // controllerIdle(controller): ms since a command
Napi::Value ControllerStats(const Napi::CallbackInfo& info);    // controllerStats(controller): counters

Napi::Value ControllerQueues(const Napi::CallbackInfo& info);  // controllerQueues(controller): counters[]

Napi::Value TargetStart(const Napi::CallbackInfo& info);           // targetStart(options, events): target
Napi::Value TargetListen(const Napi::CallbackInfo& info);          // targetListen(target, address, port, ipv6): port
Napi::Value TargetUnlisten(const Napi::CallbackInfo& info);        // targetUnlisten(target, listener): Promise
Napi::Value TargetMaxConnections(const Napi::CallbackInfo& info);  // targetMaxConnections(target, connections)
Napi::Value TargetListenFd(const Napi::CallbackInfo& info);        // targetListenFd(target, fd, tls)
Napi::Value TargetTls(const Napi::CallbackInfo& info);             // targetTls(target, listener, tls)
Napi::Value TargetSetup(
    const Napi::CallbackInfo& info);  // targetSetup(target, connection, qid, size, flow, controller, locked)
Napi::Value TargetKey(const Napi::CallbackInfo& info);     // targetKey(target, connection, identity, key)
Napi::Value TargetUnlock(const Napi::CallbackInfo& info);  // targetUnlock(target, connection)
Napi::Value TargetComplete(
    const Napi::CallbackInfo& info);  // targetComplete(target, [connection, tag, status, result, data][])
Napi::Value TargetClose(const Napi::CallbackInfo& info);        // targetClose(target, connection)
Napi::Value TargetConnections(const Napi::CallbackInfo& info);  // targetConnections(target): how many are open
Napi::Value TargetRenew(const Napi::CallbackInfo& info);        // targetRenew(target): Promise
Napi::Value TargetEngine(const Napi::CallbackInfo& info);       // targetEngine(target): "sync" | "uring"
Napi::Value TargetStop(const Napi::CallbackInfo& info);         // targetStop(target): Promise

}  // namespace vioctl::nvme
