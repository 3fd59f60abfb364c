/**
 * Makes an untrusted string (NQN, block name, idstr, file name) safe for a terminal and a log line: control characters,
 * DEL, C1 controls, bidirectional overrides and lone surrogates become `\xNN` / `\u{…}`; backslash is doubled.
 */
export function printable(text: string): string {
  return text.toWellFormed().replace(/[\\\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufffd]/g, (c) => {
    const code = c.codePointAt(0)!;
    if (c === '\\') return '\\\\';
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`;
  });
}
