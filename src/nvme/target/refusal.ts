import { connectRefused, Status } from '../wire/index.js';

/** A status as the tables of src/nvme/wire have them. */
export interface StatusRow {
  readonly sct: number;
  readonly sc: number;
  readonly dnr: boolean;
}

/** Status as the engine takes it: SCT << 8 | SC, bit 14 for Do Not Retry. */
export const statusCode = (status: StatusRow, dnr = status.dnr): number => (status.sct << 8) | status.sc | (dnr ? 0x4000 : 0);

/** A command that is answered with an error. Thrown by whoever finds the reason, caught where the answer is made. */
export class Refusal extends Error {
  readonly status: number;
  readonly result: number;
  /** Offset of the wrong byte in the command, for the error log. */
  readonly location: number | undefined;

  constructor(status: StatusRow, options: { result?: number; location?: number } = {}) {
    super(`status ${status.sct}/${status.sc.toString(16)}h`);
    this.name = 'Refusal';
    this.status = statusCode(status);
    this.result = options.result ?? 0;
    this.location = options.location;
  }
}

/** Connect Invalid Parameters: `where` the parameter lies, in the SQE or in the data, and at which offset. */
export const badParameter = (where: 'sqe' | 'data', offset: number): Refusal =>
  new Refusal(Status.connectInvalidParameters, {
    result: connectRefused.encode({ ipo: offset, iattr: where === 'data' ? 1 : 0 }).readUInt32LE(0),
  });

export const invalidField = (location?: number): Refusal => new Refusal(Status.invalidField, location === undefined ? {} : { location });
