/** Clients that lost their connections together, and a gateway with a token bucket, in virtual time. */

import { seeded } from "../random.js";

/** Virtual time after which a simulation ends, in milliseconds. */
const END = 2 * 3_600_000;

/**
 * Runs a storm. All connections end at 0. Each client has a latency of 20 to 150 ms to the gateway, which admits
 * connections while its bucket has a token, and refuses others at once.
 * @param {(random: () => number) => (now: number) => number} schedule
 * @param {object} options
 * @param {number} options.clients
 * @param {number} [options.rate] tokens a second, which is also the size of the bucket
 * @param {number} [options.outage] milliseconds for which the gateway refuses all connections
 */
export function simulate(schedule, { clients, rate = Infinity, outage = 0, seed = 1 }) {
  const random = seeded(seed);
  /** Clients by the millisecond at which their attempt arrives. */
  const arrivals = [];
  /** When each client is back. */
  const returns = [];
  /** Attempts by second. */
  const attempts = [];
  let tokens = rate;
  let most = 0;

  const plan = (client, now) => {
    const at = Math.ceil(now + client.next(now) + client.latency);
    (arrivals[at] ??= []).push(client);
  };
  for (let count = 0; count < clients; count++) {
    const latency = 20 + random() * 130;
    plan({ next: schedule(random), latency, attempts: 0 }, latency);
  }
  for (let now = 0; now < END && returns.length < clients; now++) {
    tokens = Math.min(rate, tokens + rate / 1000);
    const due = arrivals[now] ?? [];
    delete arrivals[now];
    const second = Math.floor(now / 1000);
    attempts[second] = (attempts[second] ?? 0) + due.length;
    for (const client of due) {
      client.attempts++;
      most = Math.max(most, client.attempts);
      if (now < outage || tokens < 1) plan(client, now);
      else {
        tokens--;
        returns.push(now);
      }
    }
  }
  const total = attempts.reduce((sum, count) => sum + count, 0);
  /** Seconds until a share of the clients is back. */
  const back = (share) => (returns[Math.ceil(share * clients) - 1] ?? Infinity) / 1000;
  return { back, total, most, peak: Math.max(...attempts), mean: returns.reduce((sum, at) => sum + at, 0) / returns.length / 1000 };
}
