#include "nvme/pdu.h"

#include <algorithm>
#include <iterator>

namespace vioctl::nvme {
namespace {

constexpr uint32_t kDigest = 4;  // bytes of one
// Offsets of the fields.
constexpr uint32_t kType = 0, kFlags = 1, kHlen = 2, kPdo = 3, kPlen = 4;

constexpr PduFault Wrong(uint32_t field) { return {kFesHeader, field}; }

// Data of a PDU begins behind its header, aligned, and within the PDU.
bool PdoFits(const CommonHeader& ch, uint32_t bare) { return ch.pdo >= bare && ch.pdo % 4 == 0 && ch.pdo <= ch.plen; }

PduFault CheckCapsule(const CommonHeader& ch, const PduTerms& terms, uint32_t bare) {
  const uint32_t digest = terms.data_digest ? kDigest : 0;
  if (ch.plen < bare || ch.plen > uint64_t{kMaxPdo} + terms.max_capsule_data + digest) return Wrong(kPlen);
  if (ch.plen == bare) return ch.pdo > ch.plen ? Wrong(kPdo) : PduFault{};
  if (!PdoFits(ch, bare)) return Wrong(kPdo);
  const uint32_t tail = ch.plen - ch.pdo;
  return tail <= digest || tail - digest > terms.max_capsule_data ? Wrong(kPlen) : PduFault{};
}

PduFault CheckData(const CommonHeader& ch, const PduTerms& terms, uint32_t bare) {
  if (ch.plen < bare) return Wrong(kPlen);
  if (ch.plen > uint64_t{kMaxPdo} + terms.max_data + (terms.data_digest ? kDigest : 0)) return {kFesLimit, 0};
  return PdoFits(ch, bare) ? PduFault{} : Wrong(kPdo);
}

}  // namespace

PduFault CheckHeader(const CommonHeader& ch, const PduTerms& terms, uint32_t* need) {
  const auto* rule =
      std::find_if(std::begin(kPduRules), std::end(kPduRules), [&](const PduRule& one) { return one.type == ch.type; });
  if (rule == std::end(kPduRules) || rule->to_controller != terms.to_controller) return Wrong(kType);
  const bool header_digest = rule->digests && terms.header_digest, data_digest = rule->digests && terms.data_digest;
  const uint32_t bare = rule->hlen + (header_digest ? kDigest : 0);
  if ((ch.flags & ~rule->flags) != 0) return Wrong(kFlags);
  if (((ch.flags & kHdgstFlag) != 0) != header_digest) return Wrong(kFlags);
  // The flag of the data digest belongs to the data: a capsule without data may leave it out.
  const bool flagged = (ch.flags & kDdgstFlag) != 0;
  if (flagged && !data_digest) return Wrong(kFlags);
  if (!flagged && data_digest && (rule->payload == kPayload || (rule->payload == kMayPayload && ch.plen > bare)))
    return Wrong(kFlags);
  if (ch.hlen != rule->hlen) return Wrong(kHlen);
  switch (rule->payload) {
    case kNoPayload:
      if (!rule->digests && ch.pdo != 0) return Wrong(kPdo);
      *need = ch.plen;
      return ch.plen != bare ? Wrong(kPlen) : PduFault{};
    case kMayPayload:
      *need = ch.plen;
      return CheckCapsule(ch, terms, bare);
    default:
      *need = ch.pdo;
      return CheckData(ch, terms, bare);
  }
}

}  // namespace vioctl::nvme
