#include "os/netlink/wireguard.h"

#include <arpa/inet.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/wireguard.h>
#include <net/if.h>
#include <netinet/in.h>

#include <cstring>
#include <functional>

#include "common/error.h"
#include "os/netlink/netlink.h"

namespace vioctl::os {
namespace {

using Each = std::function<void(unsigned type, const char* data, size_t size)>;

// Calls `each` for the attributes in `size` bytes; what is left of a broken one ends it.
void Attributes(const char* data, size_t size, const Each& each) {
  while (size >= NLA_HDRLEN) {
    nlattr head;
    memcpy(&head, data, sizeof head);
    if (head.nla_len < NLA_HDRLEN || head.nla_len > size) return;
    each(head.nla_type & NLA_TYPE_MASK, data + NLA_HDRLEN, head.nla_len - NLA_HDRLEN);
    const size_t step = NLA_ALIGN(head.nla_len);
    if (step >= size) return;
    data += step;
    size -= step;
  }
}

// The attributes of a generic netlink message.
void MessageAttributes(const nlmsghdr& message, const Each& each) {
  if (message.nlmsg_len < NLMSG_LENGTH(GENL_HDRLEN)) return;
  Attributes(static_cast<const char*>(NLMSG_DATA(&message)) + GENL_HDRLEN, NLMSG_PAYLOAD(&message, GENL_HDRLEN), each);
}

// A request with one text at most.
struct Request {
  nlmsghdr head;
  genlmsghdr body;
  nlattr name;
  char text[IFNAMSIZ];
};

// The number of a family of generic netlink. Throws SysError ENOENT.
uint16_t Family(const char* name) {
  Request request{};
  request.head = {NLMSG_LENGTH(GENL_HDRLEN), GENL_ID_CTRL, NLM_F_REQUEST | NLM_F_DUMP, 0, 0};
  request.body.cmd = CTRL_CMD_GETFAMILY;
  uint16_t found = 0;
  NetlinkDump(
      NETLINK_GENERIC, request.head, "CTRL_CMD_GETFAMILY", [&] { found = 0; },
      [&](const nlmsghdr& message) {
        uint16_t id = 0;
        bool ours = false;
        MessageAttributes(message, [&](unsigned type, const char* data, size_t size) {
          if (type == CTRL_ATTR_FAMILY_ID && size >= sizeof id) memcpy(&id, data, sizeof id);
          if (type == CTRL_ATTR_FAMILY_NAME) ours = std::string(data, ::strnlen(data, size)) == name;
        });
        if (ours) found = id;
      });
  if (found == 0) throw SysError(ENOENT, name);
  return found;
}

// The address of a sockaddr_in or sockaddr_in6; empty for anything else.
std::string AddressOf(const char* data, size_t size) {
  sa_family_t family;
  if (size < sizeof family) return "";
  memcpy(&family, data, sizeof family);
  char text[INET6_ADDRSTRLEN] = "";
  if (family == AF_INET && size >= sizeof(sockaddr_in))
    ::inet_ntop(AF_INET, data + offsetof(sockaddr_in, sin_addr), text, sizeof text);
  if (family == AF_INET6 && size >= sizeof(sockaddr_in6))
    ::inet_ntop(AF_INET6, data + offsetof(sockaddr_in6, sin6_addr), text, sizeof text);
  return text;
}

}  // namespace

std::vector<WireguardPeer> WireguardPeers(const std::vector<std::string>& devices) {
  std::vector<WireguardPeer> found;
  if (devices.empty()) return found;
  const uint16_t family = Family(WG_GENL_NAME);
  for (const std::string& device : devices) {
    if (device.size() >= IFNAMSIZ) continue;
    Request request{};
    request.name = {static_cast<uint16_t>(NLA_HDRLEN + device.size() + 1), WGDEVICE_A_IFNAME};
    request.body = {WG_CMD_GET_DEVICE, WG_GENL_VERSION, 0};
    // bytes behind the attribute would be an error
    const unsigned length = NLMSG_LENGTH(GENL_HDRLEN) + NLA_ALIGN(request.name.nla_len);
    request.head = {length, family, NLM_F_REQUEST | NLM_F_DUMP, 0, 0};
    memcpy(request.text, device.c_str(), device.size() + 1);
    const size_t before = found.size();
    NetlinkDump(
        NETLINK_GENERIC, request.head, "WG_CMD_GET_DEVICE", [&] { found.resize(before); },
        [&](const nlmsghdr& message) {
          MessageAttributes(message, [&](unsigned type, const char* peers, size_t size) {
            if (type != WGDEVICE_A_PEERS) return;
            Attributes(peers, size, [&](unsigned, const char* peer, size_t peer_size) {
              Attributes(peer, peer_size, [&](unsigned member, const char* data, size_t bytes) {
                const std::string address = member == WGPEER_A_ENDPOINT ? AddressOf(data, bytes) : "";
                if (!address.empty()) found.push_back({device, address});
              });
            });
          });
        });
  }
  return found;
}

}  // namespace vioctl::os
