/** PDUs as records: what a proxy tells of each. Nothing is trusted; what cannot be decoded is told as such. */
import {
  c2hData,
  commandName,
  commonHeader,
  connectCmd,
  connectData,
  cqe,
  decodeStatus,
  fatalErrorText,
  h2cData,
  icReq,
  icResp,
  PduFlag,
  pduRule,
  r2t,
  rwCmd,
  sqe,
  statusText,
  termReq,
} from '../wire/index.js';

/** One PDU. */
export interface PduRecord {
  event: 'pdu';
  /** Seconds since the proxy started. */
  time: number;
  /** number of the connection, from 1 */
  connection: number;
  dir: 'h2c' | 'c2h';
  /** PDU type, such as CapsuleCmd */
  type: string;
  /** flags of the PDU header */
  flags: string[];
  /** bytes of the PDU */
  plen: number;
  /** queue; 0 is the admin queue */
  qid: number | undefined;
  /** identifier of the command */
  cid?: number;
  /** name of the command that the PDU belongs to */
  command?: string;
  /** decoded fields of the header or the queue entry */
  fields?: Record<string, unknown>;
  /** CapsuleResp: status of the command */
  status?: string;
  /** CapsuleResp: microseconds since its command */
  latency?: number;
  /** Faults that were injected. */
  faults?: string[];
}

/** What is known of one connection. */
export class Tracker {
  readonly connection: number;
  qid: number | undefined;
  readonly #commands = new Map<number, { name: string; at: number }>();
  readonly #started: number;

  constructor(connection: number, started: number) {
    this.connection = connection;
    this.#started = started;
  }

  /** Describes a PDU and remembers what later ones refer to. @param pdu all its bytes */
  describe(dir: 'h2c' | 'c2h', pdu: Buffer): PduRecord {
    const { type, flags, plen, pdo } = commonHeader.decode(pdu);
    const rule = pduRule(type);
    const now = performance.now();
    const record: PduRecord = {
      event: 'pdu',
      time: Math.round((now - this.#started) * 1000) / 1e6,
      connection: this.connection,
      dir,
      type: rule?.name ?? `type 0x${type.toString(16)}`,
      flags: Object.entries(PduFlag).flatMap(([name, bit]) => (flags & bit ? [name] : [])),
      plen,
      qid: this.qid,
    };
    if (!rule || pdu.length < rule.hlen) return record;
    switch (rule.name) {
      case 'ICReq':
        record.fields = icReq.decode(pdu);
        break;
      case 'ICResp':
        record.fields = icResp.decode(pdu);
        break;
      case 'H2CTermReq':
      case 'C2HTermReq': {
        const { fes, fei } = termReq.decode(pdu);
        record.fields = { fes, fei };
        record.status = fatalErrorText(fes, fei);
        break;
      }
      case 'CapsuleCmd':
        this.#command(record, pdu, pdo, now);
        break;
      case 'CapsuleResp': {
        const { cid, status, dw0, dw1, sqhd } = cqe.decode(pdu, 8);
        const command = this.#commands.get(cid);
        this.#commands.delete(cid);
        const decoded = decodeStatus(status);
        record.cid = cid;
        record.fields = { dw0, dw1, sqhd, sct: decoded.sct, sc: decoded.sc, dnr: decoded.dnr };
        record.status = statusText(decoded, (this.qid ?? 0) > 0 && !command?.name.startsWith('fabrics') ? 'io' : 'admin');
        if (command) {
          record.command = command.name;
          record.latency = Math.round((now - command.at) * 1000);
        }
        break;
      }
      default: {
        const { cccid, ...fields } =
          rule.name === 'R2T' ? r2t.decode(pdu) : rule.name === 'H2CData' ? h2cData.decode(pdu) : c2hData.decode(pdu);
        const command = this.#commands.get(cccid);
        record.cid = cccid;
        if (command) record.command = command.name;
        record.fields = fields;
        if (flags & PduFlag.success) this.#commands.delete(cccid);
      }
    }
    return record;
  }

  #command(record: PduRecord, pdu: Buffer, pdo: number, now: number): void {
    const entry = pdu.subarray(8, 72);
    const { opcode, fctype, cid, nsid, sglLength, sglId, cdw10, cdw11, cdw12 } = sqe.decode(entry);
    if (opcode === 0x7f && fctype === 1) {
      this.qid = connectCmd.decode(entry).qid;
      record.qid = this.qid;
    }
    const name = commandName(opcode, fctype, (this.qid ?? 0) > 0 ? 'io' : 'admin');
    record.cid = cid;
    record.command = name;
    const sgl = { length: sglLength, id: sglId };
    if (opcode === 0x7f && fctype === 1 && pdo >= 72 && pdu.length >= pdo + connectData.size) {
      const { hostnqn, subnqn, cntlid } = connectData.decode(pdu, pdo);
      record.fields = { ...connectCmd.decode(entry), hostnqn, subnqn, cntlid };
    } else if ((this.qid ?? 0) > 0 && opcode !== 0x7f && opcode !== 0) {
      const { slba, nlb, fua } = rwCmd.decode(entry);
      record.fields = { nsid, slba, nlb: nlb + 1, fua, sgl };
    } else {
      record.fields = { ...(opcode !== 0x7f && { nsid }), cdw10, cdw11, cdw12, sgl };
    }
    // A host that never takes its completions must not grow this: a queue has 65,536 identifiers at most.
    this.#commands.set(cid, { name, at: now });
  }
}
