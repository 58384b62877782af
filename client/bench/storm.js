/**
 * The time until all clients are back after API Gateway has dropped them, beside the schedules of other clients.
 * Needs no network. `CLIENTS=100000 npm run storm` has another number of clients.
 */

import { SCHEDULES } from "./storm/schedules.js";
import { simulate } from "./storm/simulation.js";

/**
 * New connections a second that API Gateway admits for an account, in bursts of as many.
 *
 * Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html
 */
const RATE = 500;
/** Seconds of outages, and the clients over which their figures are averaged. */
const OUTAGES = [0, 5, 30, 300, 3600];
const SAMPLES = 1000;
const clients = Number(process.env.CLIENTS ?? 10_000);
const ideal = clients / RATE;

const row = (name, ...values) => console.log(`  ${name.padEnd(24)}${values.map((value) => `${value}`.padStart(11)).join("")}`);

console.log(`${clients} clients are dropped at once, and ${RATE} connections a second are admitted: at best ${ideal} s`);
row("", "50 % back", "99 %", "100 %", "of ideal", "attempts", "a client", "at most", "peak a s");
for (const [name, schedule] of Object.entries(SCHEDULES)) {
  const { back, total, most, peak } = simulate(schedule, { clients, rate: RATE });
  const times = [0.5, 0.99, 1].map((share) => `${back(share).toFixed(1)} s`);
  row(name, ...times, (back(1) / ideal).toFixed(2), total, (total / clients).toFixed(1), most, peak);
}

console.log("\none client after an outage: mean time from its end to the connection, and attempts");
row("", ...OUTAGES.flatMap((seconds) => [`${seconds} s`, "attempts"]));
for (const [name, schedule] of Object.entries(SCHEDULES)) {
  row(name, ...OUTAGES.flatMap((seconds) => {
    const { mean, total } = simulate(schedule, { clients: SAMPLES, outage: seconds * 1000 });
    return [`${(mean - seconds).toFixed(1)} s`, (total / SAMPLES).toFixed(1)];
  }));
}
