/** Size beside other clients, messages a second, time from frame to handler, and memory. Needs no network. */

import { StreamerClient } from "../index.js";
import { measure } from "./size.js";

/** KiB of other clients with all of their exports, bundled and minified by esbuild and compressed by gzip -9. */
const OTHERS = {
  "centrifuge 5.8.0": 23.2,
  "pusher-js 8.6.0": 18.7,
  "@azure/web-pubsub-client 1.1.0": 14.1,
  "socket.io-client 4.8.4": 13.1,
  "phoenix 1.8.16": 8.1,
  "partysocket 1.3.0": 4.0,
  "reconnecting-websocket 4.4.0": 3.1,
};

class Socket {
  constructor() {
    Socket.last = this;
    queueMicrotask(() => this.onopen());
  }
  send() {}
  close() {}
}

const frame = (seq) => ({ data: `{"type":"streamer.message","stream":"user","epoch":"e","seq":${seq},"id":"m${seq}","payload":{"type":"order","total":${seq}}}` });
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Connects a client whose first page is empty, and calls `handle` for each message. */
async function connect(handle, storage) {
  const client = new StreamerClient("ws://localhost", { token: () => "t", WebSocket: Socket, mailbox: { storage } });
  client.on("message", handle);
  await client.connect();
  Socket.last.onmessage({ data: '{"type":"streamer.page","n":1,"stream":"user","epoch":"e","after":0,"through":0,"top":0,"messages":[],"missing":[],"expires_in":7200,"now":0}' });
  await client.caughtUp();
  return client;
}

/** Sends messages in bursts that fit in the line. */
async function send(client, from, count) {
  for (let seq = from; seq < from + count; ) {
    for (let burst = 0; burst < 500 && seq < from + count; burst++) Socket.last.onmessage(frame(seq++));
    await turn();
  }
  while (client.position.seq < from + count - 1) await turn();
}

function memory() {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed / 2 ** 20;
}

const { compressed } = measure();
console.log("size in KiB, minified by esbuild and compressed by gzip -9");
for (const [name, size] of Object.entries({ ...OTHERS, "streamer-client": compressed / 1024 }).sort(([, a], [, b]) => b - a)) {
  console.log(`  ${name.padEnd(32)}${size.toFixed(1).padStart(5)}`);
}

const stored = new Map();
for (const [name, storage] of [["without storage", undefined], ["with storage", { getItem: () => null, setItem: (key, value) => void stored.set(key, value) }]]) {
  const client = await connect(() => {}, storage);
  await send(client, 1, 50_000);
  const started = performance.now();
  await send(client, 50_001, 200_000);
  const seconds = (performance.now() - started) / 1000;
  console.log(`messages a second, ${name}: ${Math.round(200_000 / seconds).toLocaleString("en")}`);
  await client.close();
}

const times = [];
let sentAt = 0;
const client = await connect(() => void (times.length < 20_000 && times.push(performance.now() - sentAt)));
for (let seq = 1; seq <= 20_000; seq++) {
  sentAt = performance.now();
  Socket.last.onmessage(frame(seq));
  await turn();
}
times.sort((a, b) => a - b);
const micros = (share) => Math.round(times[Math.floor(times.length * share)] * 1000);
console.log(`frame to handler: median ${micros(0.5)} µs, 99th percentile ${micros(0.99)} µs`);

await send(client, 20_001, 80_000);
const before = memory();
await send(client, 100_001, 900_000);
const after = memory();
console.log(`heap after 100 000 messages ${before.toFixed(1)} MiB, after 1 000 000 ${after.toFixed(1)} MiB`);
await client.close();
