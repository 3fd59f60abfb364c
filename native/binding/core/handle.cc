#include "binding/core/handle.h"

#include <unordered_set>

namespace vioctl::handle {
namespace {

// The handles of one environment, which only its thread uses. Kept by the environment and by each handle, because an
// environment that ends finalizes both in any order.
using Table = std::unordered_set<const void*>;

struct Owned : Box {
  std::shared_ptr<Table> table;
};

struct Instance {
  std::shared_ptr<Table> table = std::make_shared<Table>();
};

std::shared_ptr<Table>& TableOf(Napi::Env env) {
  auto* instance = env.GetInstanceData<Instance>();
  if (!instance) {
    instance = new Instance;
    env.SetInstanceData(instance);
  }
  return instance->table;
}

}  // namespace

Napi::Value New(Napi::Env env, const void* type, std::shared_ptr<void> object) {
  auto box = std::make_unique<Owned>(Owned{{type, std::move(object)}, TableOf(env)});
  box->table->insert(box.get());
  try {
    auto external = Napi::External<Owned>::New(env, box.get(), [](Napi::Env, Owned* held) {
      held->table->erase(held);
      delete held;
    });
    box.release();
    return external;
  } catch (...) {
    box->table->erase(box.get());
    throw;
  }
}

Box* Find(const Napi::Value& value) {
  if (value.IsEmpty() || !value.IsExternal()) return nullptr;
  void* data = nullptr;
  if (napi_get_value_external(value.Env(), value, &data) != napi_ok) return nullptr;
  // An External of another addon may hold any pointer: only one that is in the table is looked at.
  const auto& table = *TableOf(value.Env());
  return table.contains(data) ? static_cast<Owned*>(data) : nullptr;
}

}  // namespace vioctl::handle
