/**
 * Compares the producer with the SDK alone, in one run: `node bench/bench.js [MESSAGES]`. The queue is another process on this
 * machine, and answers at once, so the figures are the CPU time of the sender and not the latency of SQS.
 */

import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { SQSClient, SendMessageBatchCommand, SendMessageCommand } from "@aws-sdk/client-sqs";
import { Message, Producer } from "../index.js";
import { Endpoint } from "../test/endpoint.js";

const MESSAGES = Number(process.argv[2] ?? 3000);
const ROUNDS = 3;

/** The number of messages that a program sends at the same time. */
const CONCURRENT = 100;

const bodyOf = (id) => JSON.stringify({ version: 1, id: `m${id}`, to: { connection: "c" }, payload: { type: "response", data: "hello", id: `m${id}` } });
const range = (from, to) => Array.from({ length: to - from }, (_, index) => from + index);

/** Each way to send the messages with these numbers. */
const WAYS = {
  "SendMessage for each": (client, QueueUrl) => (ids) =>
    Promise.all(ids.map((id) => client.send(new SendMessageCommand({ QueueUrl, MessageBody: bodyOf(id) })))),
  "SendMessageBatch by hand": (client, QueueUrl) => (ids) =>
    Promise.all(
      range(0, Math.ceil(ids.length / 10)).map((batch) => {
        const Entries = ids.slice(batch * 10, batch * 10 + 10).map((id) => ({ Id: String(id), MessageBody: bodyOf(id) }));
        return client.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
      }),
    ),
  "producer.send for each": (client, url) => {
    const producer = new Producer(url, { client });
    return (ids) => Promise.all(ids.map((id) => producer.send(Message.connection("c").id(`m${id}`).response("hello"))));
  },
  "producer.sendAll": (client, url) => {
    const producer = new Producer(url, { client });
    return (ids) => producer.sendAll(ids.map((id) => Message.connection("c").id(`m${id}`).response("hello")));
  },
};

async function serve() {
  const queue = await Endpoint.open();
  process.send({ url: queue.url });
  // The parent's end closes the channel.
  process.on("disconnect", () => process.exit());
}

/** Returns the messages per second and the microseconds of CPU time per message. */
async function measure(send) {
  const [began, cpu] = [performance.now(), process.cpuUsage()];
  for (let from = 0; from < MESSAGES; from += CONCURRENT) await send(range(from, Math.min(from + CONCURRENT, MESSAGES)));
  const seconds = (performance.now() - began) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return { rate: MESSAGES / seconds, cpu: (user + system) / MESSAGES };
}

async function compare() {
  const server = fork(fileURLToPath(import.meta.url), ["serve"]);
  const [{ url }] = await once(server, "message");
  const credentials = { accessKeyId: "test", secretAccessKey: "test" };
  const client = new SQSClient({ endpoint: new URL(url).origin, region: "eu-central-1", credentials, maxAttempts: 1 });
  const ways = Object.entries(WAYS).map(([name, way]) => ({ name, send: way(client, url), results: [] }));
  // Each way once in each round, so that the load of the machine is the same for all. The first round warms up.
  for (const round of range(0, ROUNDS + 1)) {
    for (const { send, results } of ways) {
      const result = await measure(send);
      if (round) results.push(result);
    }
  }
  server.disconnect();
  client.destroy();
  const median = (values) => values.sort((one, other) => one - other)[Math.floor(values.length / 2)];
  console.log(`${MESSAGES} messages, ${CONCURRENT} at the same time, median of ${ROUNDS} rounds`);
  for (const { name, results } of ways) {
    const rate = median(results.map((result) => result.rate)).toFixed(0).padStart(7);
    const cpu = median(results.map((result) => result.cpu)).toFixed(0).padStart(5);
    console.log(`${name.padEnd(26)}${rate} messages/s${cpu} µs of CPU time a message`);
  }
}

await (process.argv[2] === "serve" ? serve() : compare());
