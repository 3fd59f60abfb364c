/** A question that may take as long as a device or a server hangs: how to wait for its answer, and how not to. */
export interface Question<T> {
  now(): T;
  later(): Promise<T>;
}

/** Work with such questions in it. It is written once, for those who wait and for those who must not. */
export type Steps<T> = Generator<Question<unknown>, T, unknown>;

/** Puts a question from within steps. @throws what its answer throws */
export function* ask<T>(question: Question<T>): Steps<T> {
  return (yield question) as T;
}

/** Takes all steps, and blocks in each. */
export function runNow<T>(steps: Steps<T>): T {
  let step = steps.next();
  while (!step.done) {
    let answer: unknown;
    try {
      answer = step.value.now();
    } catch (err) {
      step = steps.throw(err);
      continue;
    }
    step = steps.next(answer);
  }
  return step.value;
}

/** Takes all steps, and blocks in none. */
export async function runLater<T>(steps: Steps<T>): Promise<T> {
  let step = steps.next();
  while (!step.done) {
    let answer: unknown;
    try {
      answer = await step.value.later();
    } catch (err) {
      step = steps.throw(err);
      continue;
    }
    step = steps.next(answer);
  }
  return step.value;
}
