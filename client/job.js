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
 * @param {() => void} forget ends the wait for an answer
 */
export const createJob = (id, forget) => {
  const result = defer();
  const acknowledged = defer();
  let news = defer();
  /** @type {any} */
  let latest;
  /** @type {boolean | undefined} */
  let isEnded;

  const wake = () => {
    news.resolve();
    news = defer();
  };

  async function* progress() {
    for (let shown; ; ) {
      if (shown !== latest) yield (shown = latest);
      else if (isEnded) return result.promise;
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
    isEnded = isEnd(answer);
    if (answer.type === "error") result.reject(new RequestError(answer.error ?? {}));
    else if (isEnded) result.resolve(answer.type === "complete" ? answer.result : answer.data);
    else if (answer.type === "progress") latest = answer;
    wake();
  };

  /** @type {import("./types.js").Job} */
  const job = Object.assign(result.promise, {
    id,
    acknowledged: acknowledged.promise,
    cancel() {
      forget();
      fail(new ClosedError("cancelled"));
    },
    [Symbol.asyncIterator]: progress,
  });
  return { job, take, fail };
};
