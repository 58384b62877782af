import assert from "node:assert/strict";
import { test } from "node:test";
import { jwt, live, outcome, page, rig, settle, storage } from "./harness.js";

/** Syncs that were sent, as `n`, whether it is a hello, and the position. */
const syncs = (socket) =>
  socket.take().filter(({ type }) => type === "streamer.sync").map(({ n, hello, streams: [{ epoch, seq, from }] }) => [n, hello, from ?? `${epoch}/${seq}`]);

const named = (events, name) => events.filter(([event]) => event === name).map(([, event]) => event);

test("sync frame names type and action", async () => {
  const { sockets, start } = rig({ mailbox: { from: "now" } });
  await start();
  assert.deepEqual(sockets[0].take(), [
    { type: "streamer.sync", action: "streamer.sync", n: 1, hello: true, streams: [{ stream: "user", from: "now" }] },
  ]);
});

test("messages arrive one by one", async () => {
  const { client, start } = rig({ mailbox: {} });
  const seen = [];
  const ends = [];
  client.on("message", (message) => {
    seen.push(message);
    return new Promise((resolve) => ends.push(resolve));
  });
  const socket = await start();
  for (const seq of [1, 3, 2]) socket.frame(live(seq));
  await settle();
  assert.deepEqual(seen, [{ id: "m1", seq: 1, kept: true, replayed: false, data: 1 }]);
  assert.equal(client.position.seq, 0);
  ends[0]();
  await settle();
  assert.deepEqual([seen.at(-1).seq, client.position], [2, { epoch: "e", seq: 1 }]);
});

test("caughtUp counts replayed messages", async () => {
  const { client, events, sockets } = rig({ mailbox: {} });
  client.on("message", () => {});
  client.connect();
  const caughtUp = client.caughtUp();
  await settle();
  sockets[0].open();
  sockets[0].frame(page(1, 0, 2, 3));
  await settle();
  assert.equal(await outcome(caughtUp), "pending");
  sockets[0].frame(page(2, 2, 3));
  assert.deepEqual(await outcome(caughtUp), { value: undefined });
  assert.deepEqual(named(events, "caughtUp"), [{ replayed: 3 }]);
  await client.close();
});

test("slow handler delays caughtUp", async () => {
  const { client, window, events, sockets } = rig({ mailbox: {} });
  const ends = [];
  client.on("message", () => new Promise((resolve) => ends.push(resolve)));
  client.connect();
  await settle();
  sockets[0].open();
  sockets[0].frame(page(1, 0, 1));
  await settle();
  sockets[0].drop();
  ends.shift()();
  await settle();
  assert.deepEqual([client.state, named(events, "caughtUp")], ["waiting", []]);
  await window.advance(1000);
  sockets[1].open();
  sockets[1].frame(page(2, 1, 2));
  await settle();
  assert.equal(client.state, "connected");
  ends.shift()();
  await settle();
  assert.equal(client.state, "caughtUp");
});

test("gaps carry range, count and reason", async () => {
  const { client, events, sockets } = rig({ mailbox: {} });
  client.connect();
  await settle();
  sockets[0].open();
  sockets[0].frame(page(1, 0, 5, 5, { messages: [], missing: [{ from: 1, to: 3, reason: "overflow" }, { from: 4, to: 5, reason: "expired" }] }));
  await settle();
  assert.deepEqual(named(events, "gap"), [
    { reason: "overflow", from: 1, to: 3, count: 3 },
    { reason: "expired", from: 4, to: 5, count: 2 },
  ]);
});

test("position continues after a reload", async () => {
  const store = storage();
  const options = { mailbox: { storage: store, key: "inbox" }, token: () => jwt("anna") };
  const first = rig(options);
  first.client.on("message", () => {});
  await first.start();
  first.sockets[0].frame(live(1));
  await settle();
  const second = rig(options);
  second.client.on("message", () => {});
  second.client.connect();
  await settle();
  second.sockets[0].open();
  assert.deepEqual(syncs(second.sockets[0]), [[1, true, "e/1"]]);
  assert.deepEqual(second.client.position, { epoch: "e", seq: 1 });
  second.sockets[0].frame(page(1, 1, 2, 2, { messages: [{ seq: 2, id: "m1", payload: "again" }] }));
  await settle();
  assert.equal(second.client.position.seq, 2);
});

test("first page's position is stored", async () => {
  const store = storage();
  const { start } = rig({ mailbox: { from: "now", storage: store }, token: () => jwt("anna") });
  await start();
  assert.deepEqual([...store.map.values()], ['{"epoch":"e","seq":0,"ids":[]}']);
});

test("position moves after the handler", async () => {
  const store = storage();
  const { client, start } = rig({ mailbox: { storage: store } });
  let end;
  client.on("message", () => new Promise((resolve) => (end = resolve)));
  const socket = await start();
  socket.frame(live(1));
  await settle();
  const seq = () => JSON.parse([...store.map.values()][0]).seq;
  assert.equal(seq(), 0);
  await client.close();
  end();
  await settle();
  assert.equal(seq(), 1);
});

test("no message follows after close", async () => {
  const { client, start } = rig({ mailbox: {} });
  const seen = [];
  client.on("message", async ({ seq }) => {
    seen.push(seq);
    await settle();
  });
  const socket = await start();
  socket.frame(live(1));
  socket.frame(live(2));
  await client.close();
  await settle();
  await settle();
  assert.deepEqual(seen, [1]);
});

test("users in one browser have own positions", async () => {
  const store = storage();
  const keys = [];
  for (const token of [jwt("anna"), jwt("ben"), jwt("anna", "other"), jwt("anna", "acme", { exp: 7 }), "opaque"]) {
    const { start } = rig({ mailbox: { storage: store, key: "k" }, token: () => token });
    await start();
    keys.push([...store.map.keys()].length);
  }
  assert.deepEqual(keys, [1, 2, 3, 3, 4]);
  assert.ok([...store.map.keys()].every((key) => /^streamer:k:-?\d+$/.test(key)), "no name in a key");
});

test("unreadable storage counts as empty", async () => {
  const values = ["", "{", "null", "7", "[]", '{"epoch":"e"}', '{"epoch":"e","seq":-1,"ids":[]}', '{"epoch":"e","seq":1.5,"ids":[]}', '{"epoch":"","seq":1,"ids":[]}', '{"epoch":"e","seq":1}', '{"epoch":"e","seq":1,"ids":7}'];
  for (const value of values) {
    const { client, sockets } = rig({ mailbox: { storage: { getItem: () => value, setItem() {} } } });
    client.connect();
    await settle();
    sockets[0].open();
    assert.deepEqual(syncs(sockets[0]), [[1, true, "oldest"]], value);
    await client.close();
  }
});

test("throwing storage is reported and survived", async () => {
  const storage = { getItem() { throw new Error("denied"); }, setItem() { throw new Error("full"); } };
  const { client, events, start } = rig({ mailbox: { storage } });
  const seen = [];
  client.on("message", ({ seq }) => seen.push(seq));
  const socket = await start();
  socket.frame(live(1));
  socket.frame(live(2));
  await settle();
  assert.deepEqual(seen, [1, 2]);
  assert.deepEqual(named(events, "error").map(({ source, error }) => [source, error.message]), [
    ["storage", "denied"], ["storage", "full"], ["storage", "full"], ["storage", "full"],
  ]);
});

test("throwing handler is reported once", async () => {
  const { client, events, start } = rig({ mailbox: {} });
  client.on("message", ({ seq }) => {
    if (seq === 1) throw new Error("bug");
    return Promise.reject(new Error("rejected"));
  });
  const socket = await start();
  socket.frame(live(1));
  socket.frame(live(2));
  await settle();
  assert.deepEqual(named(events, "error").map(({ source, error }) => [source, error.message]), [["handler", "bug"], ["handler", "rejected"]]);
  assert.equal(client.position.seq, 2);
});

test("throwing listeners do not stop the client", async () => {
  const { client, sockets } = rig({ mailbox: {} });
  for (const name of ["state", "gap", "caughtUp", "error"]) client.on(name, () => { throw new Error(name); });
  client.on("message", () => {});
  client.connect();
  await settle();
  sockets[0].open();
  sockets[0].frame(page(1, 0, 1, 1, { messages: [], missing: [{ from: 1, to: 1, reason: "expired" }] }));
  sockets[0].frame(live(2));
  await settle();
  assert.deepEqual([client.state, client.position.seq], ["caughtUp", 2]);
});

test("kept message waits for a handler", async () => {
  const { client, start } = rig({ mailbox: {} });
  const socket = await start();
  socket.frame(live(1));
  await settle();
  assert.equal(client.position.seq, 0);
  const seen = [];
  const off = client.on("message", ({ seq }) => seen.push(seq));
  await settle();
  assert.deepEqual([seen, client.position.seq], [[1], 1]);
  off();
  socket.frame(live(2));
  await settle();
  assert.equal(client.position.seq, 1);
  client.on("message", ({ seq }) => seen.push(seq));
  await settle();
  assert.deepEqual(seen, [1, 2]);
});

test("loop reads with back-pressure", async () => {
  const { client, start } = rig({ mailbox: {} });
  const socket = await start();
  const loop = client.messages();
  const first = loop.next();
  for (let seq = 1; seq <= 3; seq++) socket.frame(live(seq));
  assert.equal((await first).value.seq, 1);
  await settle();
  assert.equal(client.position.seq, 0);
  assert.equal((await loop.next()).value.seq, 2);
  assert.equal(client.position.seq, 1);
  await loop.return();
  await settle();
  assert.equal(client.position.seq, 2);
  const seen = [];
  setImmediate(() => client.close());
  for await (const { seq } of client.messages()) seen.push(seq);
  assert.deepEqual(seen, [3]);
});

test("stalled handler bounds the memory", async () => {
  const { client, window, events, start } = rig({ mailbox: {} });
  client.on("message", () => new Promise(() => {}));
  const socket = await start();
  socket.take();
  for (let seq = 1; seq <= 5000; seq++) socket.frame(live(seq));
  for (let at = 0; at < 2000; at++) socket.frame({ at });
  await window.advance(60_000);
  assert.deepEqual(socket.take(), []);
  assert.deepEqual(named(events, "gap").length, 2000);
  assert.deepEqual(named(events, "gap")[0], { reason: "dropped", count: 1 });
});

test("waiting messages have at most 4 MiB", async () => {
  const { client, start, window } = rig({ mailbox: {} });
  const ends = [];
  let count = 0;
  client.on("message", () => ++count && new Promise((resolve) => ends.push(resolve)));
  const socket = await start();
  socket.take();
  for (let seq = 1; seq <= 40; seq++) socket.frame(live(seq, "x".repeat(127 * 1024)));
  for (; count < 32; await settle()) ends.shift()?.();
  // A page has to bring the others.
  await window.advance(300);
  assert.deepEqual(syncs(socket).map(([, , position]) => position), ["e/32"]);
});

test("last 128 ids are stored", async () => {
  const store = storage();
  const { client, start } = rig({ mailbox: { storage: store } });
  client.on("message", () => {});
  const socket = await start();
  for (let seq = 1; seq <= 130; seq++) {
    socket.frame(live(seq));
    await settle();
  }
  const { ids } = JSON.parse([...store.map.values()][0]);
  assert.deepEqual([ids.length, ids[0], ids.at(-1)], [128, "m3", "m130"]);
});

test("reset ends caughtUp until the next page", async () => {
  const { client, start, states } = rig({ mailbox: {} });
  client.on("message", () => {});
  const socket = await start();
  socket.frame({ ...live(1), epoch: "f" });
  socket.frame(page(2, 0, 0, 0, { epoch: "f", reset: "epoch" }));
  assert.equal(client.state, "connected");
  socket.frame(page(3, 0, 1, 1, { epoch: "f" }));
  await settle();
  assert.deepEqual(states(), ["connecting", "connected", "caughtUp", "connected", "caughtUp"]);
});

test("unsupported client ignores kept messages", async () => {
  const { client, window, sockets } = rig({ mailbox: {} });
  client.connect();
  await settle();
  sockets[0].open();
  sockets[0].frame(live(1));
  sockets[0].frame({ message: "Forbidden", connectionId: "c", requestId: "r" });
  sockets[0].frame(live(2));
  sockets[0].take();
  let timers = 0;
  const { setTimeout } = window;
  window.setTimeout = (...timer) => ++timers && setTimeout(...timer);
  await window.advance(60_000);
  assert.ok(timers <= 3, `${timers} timers in a minute`);
  assert.deepEqual(sockets[0].take(), []);
});

test("position from the future is reset", async () => {
  for (const [stored, reset] of [[{ epoch: "e", seq: 9_000_000_000_000_000, ids: [] }, "ahead"], [{ epoch: "f", seq: 7, ids: [] }, "epoch"]]) {
    const { client, events, sockets } = rig({ mailbox: { storage: { getItem: () => JSON.stringify(stored), setItem() {} } } });
    const seen = [];
    client.on("message", ({ seq }) => seen.push(seq));
    client.connect();
    await settle();
    sockets[0].open();
    sockets[0].frame(page(1, 3, 5, 5, { reset }));
    sockets[0].frame(page(2, 5, 5));
    await settle();
    assert.deepEqual([seen, named(events, "gap"), client.state], [[4, 5], [{ reason: reset }], "caughtUp"]);
    assert.deepEqual(syncs(sockets[0]).map(([n, hello]) => [n, hello]), [[1, true], [2, true]]);
  }
});

test("garbage frames change nothing", async () => {
  const { client, window, events, sockets, start } = rig({ mailbox: {} });
  const seen = [];
  client.on("message", ({ data }) => seen.push(data));
  const socket = await start();
  const base = page(1, 0, 1);
  const garbage = [
    "", "{", "\u0000", "[".repeat(100_000),
    { type: "streamer." }, { type: "streamer.page" }, { type: "streamer.message" }, { type: "streamer.chunk", id: "a" },
    { ...live(1), seq: "1" }, { ...live(1), seq: -1 }, { ...live(1), seq: 1e300 }, { ...live(1), id: 7 }, { ...live(1), epoch: null }, { ...live(1), stream: "topic" },
    { ...base, messages: 7 }, { ...base, messages: [null] }, { ...base, messages: [{ seq: 1 }] }, { ...base, missing: null }, { ...base, missing: [7] },
    { ...base, missing: [{ from: 1, to: "x" }] }, { ...base, after: "0" }, { ...base, through: 1.5 }, { ...base, epoch: {} },
  ];
  for (const frame of garbage) socket.frame(frame);
  socket.onmessage({ data: new Uint8Array(4) });
  socket.onmessage({ data: new Blob(["x"]) });
  await window.advance(10_000);
  assert.deepEqual([seen, client.state, named(events, "error"), sockets.length], [[], "caughtUp", [], 1]);
  socket.frame(live(1));
  await settle();
  assert.deepEqual(seen, [1]);
});

test("messages that are not kept are shown once", async () => {
  const { client, start } = rig();
  const seen = [];
  client.on("message", (message) => seen.push(message));
  const socket = await start();
  socket.frame({ type: "order", id: "a" });
  socket.frame({ type: "order", id: "a" });
  socket.frame(7);
  socket.frame(null);
  socket.frame(7);
  await settle();
  assert.deepEqual(seen, [
    { id: "a", kept: false, replayed: false, data: { type: "order", id: "a" } },
    { id: undefined, kept: false, replayed: false, data: 7 },
    { id: undefined, kept: false, replayed: false, data: null },
    { id: undefined, kept: false, replayed: false, data: 7 },
  ]);
});

test("last 1000 ids are remembered", async () => {
  const { client, start } = rig();
  let count = 0;
  client.on("message", () => void count++);
  const socket = await start();
  const show = async (id) => {
    const before = count;
    socket.frame({ id: `${id}` });
    await settle();
    return count > before;
  };
  for (let id = 0; id < 1000; id++) assert.equal(await show(id), true);
  // An id that is seen again counts as used.
  assert.equal(await show(0), false);
  assert.equal(await show(1000), true);
  assert.equal(await show(0), false);
  assert.equal(await show(1), true);
});

test("absent route ends in unsupported at once", async () => {
  const { client, window, events, sockets } = rig({ mailbox: {} });
  client.on("message", () => {});
  client.connect();
  const caughtUp = client.caughtUp();
  await settle();
  sockets[0].open();
  sockets[0].frame({ message: "Forbidden", connectionId: "c", requestId: "r" });
  assert.equal((await outcome(caughtUp)).error.code, "unsupported");
  assert.deepEqual(named(events, "state").at(-1), { state: "connected", reason: "unsupported", retryIn: undefined });
  sockets[0].take();
  await window.advance(7 * 60_000);
  assert.deepEqual([sockets[0].take(), sockets.length, client.state], [[], 1, "connected"]);
});

test("silent route ends in unsupported", async () => {
  const { client, window, events, sockets, next } = rig({ mailbox: {} });
  client.connect();
  for (let socket = 0; socket < 3; socket++) {
    (await next()).open();
    if (socket < 2) while (client.state === "connected") await window.advance(1000);
  }
  await window.advance(120_000);
  assert.equal(named(events, "state").at(-1).reason, "unsupported");
  assert.deepEqual(sockets.map((socket) => syncs(socket).length), [3, 3, 3]);
  await window.advance(120_000);
  assert.deepEqual([syncs(sockets[2]), sockets.length, client.state], [[], 3, "connected"]);
  // The mailbox may come back: each new socket asks once.
  sockets[2].drop();
  const last = await next();
  last.open();
  last.frame(page(10, 0, 0));
  assert.equal(client.state, "caughtUp");
});

test("failed function is an answer that never came", async () => {
  const { client, window, events, sockets } = rig({ mailbox: {} });
  client.connect();
  await settle();
  sockets[0].open();
  sockets[0].frame({ message: "Internal server error", connectionId: "c", requestId: "r" });
  assert.equal(named(events, "error")[0].error, "Internal server error");
  await window.advance(6000);
  assert.equal(syncs(sockets[0]).length, 2);
  sockets[0].frame(page(2, 0, 0));
  assert.equal(client.state, "caughtUp");
});

test("client without mailbox never syncs", async () => {
  const { client, start, window } = rig();
  const socket = await start();
  socket.frame(live(1));
  socket.frame(page(1, 0, 1));
  await window.advance(60_000);
  assert.deepEqual(socket.take(), []);
  assert.equal((await outcome(client.caughtUp())).error.code, "unsupported");
});

test("reconnect within 10 ms loses nothing", async () => {
  const { client, sockets, start, next } = rig({ mailbox: {}, random: () => 0 });
  const seen = [];
  client.on("message", ({ seq }) => seen.push(seq));
  const socket = await start();
  socket.frame(live(1));
  socket.drop();
  const second = await next();
  second.open();
  second.frame(live(3));
  second.frame(page(2, 1, 3));
  await settle();
  assert.deepEqual([seen, client.state, sockets.length], [[1, 2, 3], "caughtUp", 2]);
});
