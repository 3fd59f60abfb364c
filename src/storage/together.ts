import { types } from 'node:util';

interface Asked<Question, Answer> {
  question: Question;
  resolve: (answer: Answer) => void;
  reject: (err: unknown) => void;
}

/** Puts questions that are asked in one turn of the event loop in groups: each group is one call and one piece of work for a thread. */
export class Together<Question, Answer> {
  readonly #put: (questions: Question[]) => Promise<(Answer | Error)[]>;
  readonly #most: number;
  #waiting: Asked<Question, Answer>[] = [];

  /**
   * @param put asks a group: an answer or an error for each
   * @param most questions of a group: one that hangs keeps the others of its group waiting
   */
  constructor(put: (questions: Question[]) => Promise<(Answer | Error)[]>, most: number) {
    this.#put = put;
    this.#most = most;
  }

  ask(question: Question): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.#waiting.push({ question, resolve, reject }) === 1) queueMicrotask(() => this.#flush());
    });
  }

  #flush(): void {
    const all = this.#waiting;
    this.#waiting = [];
    for (let first = 0; first < all.length; first += this.#most) void this.#askGroup(all.slice(first, first + this.#most));
  }

  async #askGroup(group: Asked<Question, Answer>[]): Promise<void> {
    try {
      const answers = await this.#put(group.map(({ question }) => question));
      for (const [i, { resolve, reject }] of group.entries()) {
        const answer = answers[i]!;
        if (types.isNativeError(answer)) reject(answer);
        else resolve(answer);
      }
    } catch (err) {
      for (const { reject } of group) reject(err);
    }
  }
}
