/** What a case accepts, and how outcomes are told. */
import { fatalErrorText, statusText } from '../wire/index.js';
import type { Outcome } from './raw.js';

/** One acceptable outcome: its text for the report, and the test. */
export interface Expectation {
  text: string;
  match: (outcome: Outcome) => boolean;
}

const h = (n: number) => `${n.toString(16).toUpperCase().padStart(2, '0')}h`;

/** A successful completion; with the number of data bytes where it matters. */
export const ok = (bytes?: number): Expectation => ({
  text: bytes === undefined ? 'success' : `success with ${bytes} bytes`,
  match: (o) => o.kind === 'cqe' && o.sct === 0 && o.sc === 0 && (bytes === undefined || o.data.length === bytes),
});

/** An error status without data. @param where dnr: must be set; dw0: command-specific value */
export const status = (sct: number, sc: number, where: { dnr?: boolean; dw0?: number } = {}): Expectation => ({
  text: `status ${sct === 0 ? '' : `${sct}/`}${h(sc)}${where.dnr ? ' DNR' : ''}${where.dw0 === undefined ? '' : ` dw0=${where.dw0.toString(16)}h`}`,
  match: (o) =>
    o.kind === 'cqe' && o.sct === sct && o.sc === sc && (!where.dnr || o.dnr) && (where.dw0 === undefined || o.dw0 === where.dw0),
});
/** Permanent: DNR must be set. */
export const permanent = (sc: number): Expectation => status(0, sc, { dnr: true });
/** Connect Invalid Parameters naming the place: in the SQE, or in the data. */
export const badConnect = (ipo: number, place: 'sqe' | 'data'): Expectation => {
  const dw0 = ipo | (place === 'data' ? 0x10000 : 0);
  return { ...status(1, 0x82, { dw0 }), text: `status 1/82h IPO=${ipo} in the ${place === 'sqe' ? 'SQE' : 'data'}` };
};
/** Any error status. */
export const anyError: Expectation = { text: 'an error status', match: (o) => o.kind === 'cqe' && (o.sct !== 0 || o.sc !== 0) };

/** C2HTermReq. */
export const term = (fes: number, fei?: number): Expectation => ({
  text: `C2HTermReq FES ${h(fes)}${fei === undefined ? '' : ` FEI ${fei}`}`,
  match: (o) => o.kind === 'term' && o.fes === fes && (fei === undefined || o.fei === fei),
});
/** The connection is closed without a word. */
export const closed: Expectation = { text: 'closed', match: (o) => o.kind === 'closed' };
/** No answer is right. */
export const silence: Expectation = { text: 'no answer', match: (o) => o.kind === 'silent' };
export const icresp: Expectation = { text: 'ICResp', match: (o) => o.kind === 'icresp' };
/** What the case itself judged. */
export const holds = (text: string): Expectation => ({ text, match: (o) => o.kind === 'finding' && o.ok });

/** An outcome in words. */
export function describeOutcome(o: Outcome): string {
  switch (o.kind) {
    case 'cqe': {
      const data = o.data.length > 0 ? `, ${o.data.length} bytes` : '';
      const dw0 = o.dw0 !== 0 ? `, dw0=${o.dw0.toString(16)}h` : '';
      if (o.sct === 0 && o.sc === 0) return `success${data}${dw0}${o.flagged ? ' (SUCCESS flag)' : ''}`;
      return `status ${statusText(o)}${data}${dw0}`;
    }
    case 'icresp':
      return `ICResp (CPDA ${o.cpda}, digests ${o.dgst}, MAXH2CDATA ${o.maxh2cdata})`;
    case 'r2t':
      return `R2T for command ${o.cccid}`;
    case 'term':
      return `C2HTermReq: ${fatalErrorText(o.fes, o.fei)}`;
    case 'closed':
      return 'closed';
    case 'silent':
      return 'no answer';
    case 'broken':
      return `the target broke the protocol: ${o.text}`;
    case 'finding':
      return o.note === undefined ? o.text : `${o.text} (${o.note})`;
  }
}
