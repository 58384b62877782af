import assert from "node:assert/strict";
import { test } from "node:test";
import { createStream } from "../stream.js";
import { live, outcome, page, rig, settle, storage } from "./harness.js";

const wanted = (seq, payload = seq, id = `m${seq}`) => ({ ...live(seq, payload, id), ack: true });

/** A page whose messages ask for acknowledgments. */
const wantedPage = (n, after, through) => {
  const { messages, ...fields } = page(n, after, through);
  return { ...fields, messages: messages.map((message) => ({ ...message, ack: true })) };
};

/** The ids of the acknowledgments that were sent, frame by frame. */
const acknowledged = (socket) => socket.take().filter(({ type }) => type === "streamer.ack").map(({ ids }) => ids);

/** Ids from `m{from}` to `m{to}`. */
const ids = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => `m${from + index}`);

/** Lets handlers and the timers that are due end. */
const rest = async (window) => {
  await settle();
  await window.advance(0);
};

/** A client whose handler ends when the test says so. */
const slow = async () => {
  const store = storage();
  const parts = rig({ mailbox: { storage: store } });
  const ends = [];
  parts.client.on("message", () => new Promise((resolve, reject) => ends.push({ resolve, reject })));
  return { ...parts, ends, store, socket: await parts.start() };
};

test("acknowledgment follows the handler", async () => {
  const { client, window, ends, store, socket } = await slow();
  socket.take();
  socket.frame(wanted(1));
  await rest(window);
  assert.deepEqual(socket.take(), []);
  ends[0].resolve();
  await rest(window);
  assert.deepEqual(socket.take(), [{ type: "streamer.ack", action: "streamer.ack", ids: ["m1"] }]);
  assert.deepEqual([client.position.seq, JSON.parse([...store.map.values()][0]).seq], [1, 1]);
});

test("acknowledgment waits for no later message", async () => {
  const { window, ends, socket } = await slow();
  for (const seq of [1, 2]) socket.frame(wanted(seq));
  await settle();
  ends[0].resolve();
  await rest(window);
  assert.deepEqual([acknowledged(socket), ends.length], [[["m1"]], 2]);
});

test("acknowledgment waits for every handler", async () => {
  const { client, window, ends, socket } = await slow();
  client.on("message", () => {});
  socket.frame(wanted(1));
  await rest(window);
  assert.deepEqual(acknowledged(socket), []);
  ends[0].resolve();
  await rest(window);
  assert.deepEqual(acknowledged(socket), [["m1"]]);
});

test("failed handler acknowledges nothing", async () => {
  const { client, window, ends, socket, events } = await slow();
  client.on("message", ({ seq }) => {
    if (seq === 1) throw new Error("at once");
  });
  for (const seq of [1, 2, 3]) socket.frame(wanted(seq));
  await settle();
  ends[0].resolve();
  await settle();
  ends[1].reject(new Error("later"));
  await settle();
  ends[2].resolve();
  await rest(window);
  assert.deepEqual(events.filter(([name]) => name === "error").map(([, { error }]) => error.message), ["at once", "later"]);
  assert.deepEqual([acknowledged(socket), client.position.seq], [[["m3"]], 3]);
});

test("only messages that ask are acknowledged", async () => {
  const { client, window, start } = rig({ mailbox: {} });
  client.on("message", () => {});
  const socket = await start();
  socket.frame(wanted(1));
  socket.frame(live(2));
  socket.frame({ ...live(3), ack: false });
  socket.frame({ type: "custom", id: "not kept", ack: true });
  await rest(window);
  assert.deepEqual(acknowledged(socket), [["m1"]]);
});

test("drained messages share frames of ten", async () => {
  const { client, window, sockets } = rig({ mailbox: {} });
  client.on("message", async () => {});
  client.connect();
  await settle();
  sockets[0].open();
  sockets[0].frame(wantedPage(1, 0, 24));
  sockets[0].frame(wanted(25));
  await rest(window);
  assert.deepEqual(acknowledged(sockets[0]), [ids(1, 10), ids(11, 20), ids(21, 25)]);
  await window.advance(60_000);
  assert.deepEqual(acknowledged(sockets[0]), []);
});

test("acknowledgment waits for the next socket", async () => {
  const { window, ends, socket, sockets, next } = await slow();
  socket.frame(wanted(1));
  await settle();
  socket.drop();
  ends[0].resolve();
  await rest(window);
  const second = await next();
  assert.deepEqual([acknowledged(socket), sockets.length], [[], 2]);
  second.open();
  await rest(window);
  assert.deepEqual(second.take().map(({ type }) => type), ["streamer.sync", "streamer.ack"]);
  await window.advance(1000);
  assert.deepEqual(acknowledged(second), []);
});

test("repeated message is acknowledged once", async () => {
  const { window, ends, socket } = await slow();
  for (const seq of [1, 2, 3]) socket.frame(wanted(seq, seq, "same"));
  await settle();
  ends[0].resolve();
  await rest(window);
  assert.deepEqual([acknowledged(socket), ends.length], [[["same"]], 1]);
  socket.frame(wanted(3, 3, "same"));
  socket.frame(wanted(4, 4, "same"));
  await rest(window);
  assert.deepEqual(acknowledged(socket), []);
});

test("repeated message hides no failure", async () => {
  const { client, window, ends, socket } = await slow();
  for (const seq of [1, 2]) socket.frame(wanted(seq, seq, "same"));
  await settle();
  ends[0].reject(new Error("failed"));
  await rest(window);
  assert.deepEqual([acknowledged(socket), client.position.seq], [[], 2]);
});

test("answer is acknowledged once its job has it", async () => {
  const { client, window, start } = rig({ mailbox: {} });
  const socket = await start();
  const job = client.request({ type: "report", request_id: "r" });
  socket.frame(wanted(1, { type: "complete", request_id: "r", result: 7 }));
  assert.equal(await job, 7);
  await rest(window);
  assert.deepEqual(acknowledged(socket), [["m1"]]);
});

test("answer behind a message waits for it", async () => {
  const { client, window, ends, socket } = await slow();
  const job = client.request({ type: "report", request_id: "r" });
  socket.frame(live(1));
  socket.frame(wanted(2, { type: "complete", request_id: "r", result: 7 }));
  assert.equal(await job, 7);
  await rest(window);
  assert.deepEqual(acknowledged(socket), []);
  ends[0].resolve();
  await rest(window);
  assert.deepEqual(acknowledged(socket), [["m2"]]);
});

test("answer dropped for a later one is acknowledged", async () => {
  const { client, window, start } = rig({ mailbox: {} });
  const socket = await start();
  const seen = [];
  client.on("message", ({ id }) => seen.push(id));
  for (const seq of [1, 2]) socket.frame(wanted(seq, { type: "complete", request_id: "r", result: seq }));
  await rest(window);
  assert.deepEqual([seen, acknowledged(socket)], [["m1"], [["m1", "m2"]]]);
});

test("loop acknowledges when it moves on", async () => {
  const { client, window, start } = rig({ mailbox: {} });
  const socket = await start();
  const messages = client.messages();
  const first = messages.next();
  for (const seq of [1, 2]) socket.frame(wanted(seq));
  assert.equal((await first).value.seq, 1);
  await rest(window);
  assert.deepEqual(acknowledged(socket), []);
  assert.equal((await messages.next()).value.seq, 2);
  await rest(window);
  assert.deepEqual(acknowledged(socket), [["m1"]]);
  await messages.return();
  await rest(window);
  assert.deepEqual(acknowledged(socket), [["m2"]]);
});

test("close sends waiting acknowledgments", async () => {
  const { client, sockets } = rig({ mailbox: {} });
  client.on("message", () => {});
  client.connect();
  await settle();
  sockets[0].open();
  sockets[0].frame(wantedPage(1, 0, 12));
  assert.deepEqual(await outcome(client.caughtUp()), { value: undefined });
  await client.close();
  assert.deepEqual(acknowledged(sockets[0]), [ids(1, 10), ids(11, 12)]);
});

/** A stream that has its first page, without a client around it. */
const bare = () => {
  const frames = [];
  const shown = [];
  const stream = createStream("oldest", {
    send: (type, fields) => void frames.push([type, fields]),
    registered() {},
    reconnect() {},
    unsupported() {},
    answer: () => false,
    deliver: ({ seq }) => void shown.push(seq),
    emit() {},
  });
  stream.step(0, "opened");
  stream.step(0, "frame", page(1, 0, 0), 1);
  return { stream, shown, types: () => frames.splice(0).map(([type]) => type) };
};

test("close without a socket sends nothing", () => {
  const { stream, types } = bare();
  stream.step(0, "frame", wanted(1), 1);
  stream.step(0, "closed");
  stream.step(0, "handled");
  stream.step(0, "ended");
  assert.deepEqual(types(), ["streamer.sync"]);
});

test("at most 1000 acknowledgments wait", () => {
  const { stream, shown, types } = bare();
  for (let seq = 1; seq <= 1001; seq++) {
    stream.step(0, "frame", wanted(seq), 1);
    if (shown.length === seq) stream.step(0, "handled");
  }
  assert.equal(shown.length, 1000);
  stream.step(0, "woken");
  stream.step(300, "woken");
  assert.deepEqual(types(), ["streamer.sync", ...Array(100).fill("streamer.ack"), "streamer.sync"]);
  stream.step(300, "frame", wantedPage(2, 1000, 1001), 1);
  assert.equal(shown.at(-1), 1001);
});
