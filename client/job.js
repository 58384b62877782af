/** A request, from its sending to its result. */

import { ClosedError, RequestError } from "./errors.js";
import { isEnd } from "./requests.js";

/**
 * Returns a promise with its functions. A rejection that nothing awaits is not an unhandled one.
 * @template [T=void]
 */
export const defer = () => {
  /** @type {any} */
  let functions;
  /** @type {Promise<T>} */
  const promise = new Promise((resolve, reject) => (functions = { resolve, reject }));
  promise.catch(() => {});
  return { promise, .../** @type {{ resolve(value: T): void, reject(error: any): void }} */ (functions) };
};

/**
 * Creates a job, and the functions that end it.
 * @param {string} id
 * @param {(error: Error) => void} cancel
 */
export const createJob = (id, cancel) => {
  const result = defer();
  const acknowledged = defer();
  let news = defer();
  /** @type {any} */
  let latest;
  let isEnded = false;

  const wake = () => {
    news.resolve();
    news = defer();
  };

  async function* progress() {
    for (let shown; ; ) {
      if (shown !== latest) yield (shown = latest);
      else if (isEnded) return await result.promise;
      else await news.promise;
    }
  }

  /** @param {any} error */
  const fail = (error) => {
    isEnded = true;
    acknowledged.reject(error);
    result.reject(error);
    wake();
  };

  /** @param {any} answer an answer of the server */
  const take = (answer) => {
    acknowledged.resolve();
    if (answer.type === "error") return fail(new RequestError(answer.error ?? {}));
    if (isEnd(answer)) {
      isEnded = true;
      result.resolve(answer.type === "complete" ? answer.result : answer.data);
    } else if (answer.type === "progress") latest = answer;
    wake();
  };

  /** @type {import("./types.js").Job} */
  const job = Object.assign(result.promise, {
    id,
    acknowledged: acknowledged.promise,
    cancel: () => cancel(new ClosedError("cancelled")),
    [Symbol.asyncIterator]: progress,
  });
  return { job, take, fail };
};
