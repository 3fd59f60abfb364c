/** Messages of authentication (NVMe Base 2.0, 8.3.4): common ones and those of DH-HMAC-CHAP. */
import { Struct, u8, u16, u32 } from '../../common/struct.js';

/** Security protocol of Authentication Send and Receive. */
export const authProtocol = { secp: 0xe9, spsp0: 1, spsp1: 1 } as const;
/** AUTHREQ of a Connect response: authentication required, and a secure channel after it. */
export const AuthReq = { secureChannel: 1 << 2, required: 1 << 1 } as const;
/** AUTH_TYPE of a message. */
export const AuthType = { common: 0, dhchap: 1 } as const;
/** AUTH_ID of a message. */
export const AuthId = {
  negotiate: 0x00,
  challenge: 0x01,
  reply: 0x02,
  success1: 0x03,
  success2: 0x04,
  failure1: 0xf1,
  failure2: 0xf0,
} as const;
/** Authentication protocol identifier of DH-HMAC-CHAP. */
export const dhchapProtocol = 1;

/** What all messages begin with. */
export const authHeader = new Struct('Authentication message', 6, { type: u8(0), id: u8(1), tid: u16(4) });
/** AUTH_Negotiate, up to its descriptors. */
export const authNegotiate = new Struct('AUTH_Negotiate', 8, { type: u8(0), id: u8(1), tid: u16(4), scc: u8(6), napd: u8(7) });
/** A protocol descriptor of AUTH_Negotiate: up to 30 hash functions from byte 4 on, up to 30 groups from byte 34 on. */
export const authDescriptor = new Struct('Authentication protocol descriptor', 64, { authid: u8(0), halen: u8(2), dhlen: u8(3) });
export const descriptorLists = { hashes: 4, groups: 34, most: 30 } as const;
/** DH-HMAC-CHAP_Challenge; behind it the challenge and the DH value. */
export const chapChallenge = new Struct('DH-HMAC-CHAP_Challenge', 16, {
  type: u8(0),
  id: u8(1),
  tid: u16(4),
  hl: u8(6),
  hashid: u8(8),
  dhgid: u8(9),
  dhvlen: u16(10),
  seqnum: u32(12),
});
/** DH-HMAC-CHAP_Reply; behind it the response, the challenge and the DH value. */
export const chapReply = new Struct('DH-HMAC-CHAP_Reply', 16, {
  type: u8(0),
  id: u8(1),
  tid: u16(4),
  hl: u8(6),
  cvalid: u8(8),
  dhvlen: u16(10),
  seqnum: u32(12),
});
/** DH-HMAC-CHAP_Success1; behind it the response. */
export const chapSuccess1 = new Struct('DH-HMAC-CHAP_Success1', 16, { type: u8(0), id: u8(1), tid: u16(4), hl: u8(6), rvalid: u8(8) });
export const chapSuccess2 = new Struct('DH-HMAC-CHAP_Success2', 16, { type: u8(0), id: u8(1), tid: u16(4) });
/** AUTH_Failure1 and AUTH_Failure2. */
export const authFailure = new Struct('AUTH_Failure', 8, { type: u8(0), id: u8(1), tid: u16(4), reason: u8(6), explanation: u8(7) });

/** Reason code of failures: there is one. */
export const authFailed = 1;
/** Reason code explanations. */
export const AuthFailureCode = {
  failed: 1,
  protocolUnusable: 2,
  channelMismatch: 3,
  hashUnusable: 4,
  groupUnusable: 5,
  incorrectPayload: 6,
  incorrectMessage: 7,
} as const;
const explanations = new Map<number, string>([
  [1, 'authentication failed'],
  [2, 'authentication protocol not usable'],
  [3, 'secure channel concatenation mismatch'],
  [4, 'hash function not usable'],
  [5, 'Diffie-Hellman group not usable'],
  [6, 'incorrect payload'],
  [7, 'incorrect protocol message'],
]);
/** A reason code explanation in words. */
export const authFailureText = (code: number): string => explanations.get(code) ?? `reason ${code}`;
