/**
 * A model of Streamer and the network for property tests, in virtual time and without promises: it drops, repeats and
 * reorders frames, closes and stalls sockets, sends garbage, expires messages and reloads the page.
 */

import assert from "node:assert/strict";
import { createCore } from "../core.js";

const PAGE = 3;
const GARBAGE = ["", "{", "null", "7", '{"type":"streamer.page"}', '{"type":"streamer.message","stream":"user","epoch":"e"}',
  '{"message":"Internal server error","connectionId":"c","requestId":"r"}', `{"type":"streamer.page","n":1e9,"stream":"user","epoch":"e","after":0,"through":9,"top":9,"messages":[],"missing":[]}`];
const LARGE = "x".repeat(127 * 1024);

export class World {
  now = 1;
  /** Messages by number, from 1. */
  messages = [];
  /** Sockets by number: frames under way, and whether the socket is open, registered or stalled. */
  sockets = new Map();
  stored;
  handling;
  /** The last number that was shown or told as a gap. */
  covered;
  shown = new Set();
  completed = new Set();
  /** The ids of messages whose acknowledgment is due, and of those that were acknowledged. */
  due = new Set();
  acknowledged = new Set();
  /** The number of the last sync, and the newest message when it was answered. */
  n = 0;
  top = 0;
  tries = 0;
  isHealthy = false;
  #seed = 1;

  constructor() {
    this.#boot();
  }

  random = () => (this.#seed = (this.#seed * 16807) % 2147483647) / 2147483647;

  #boot() {
    this.core = createCore("oldest");
    this.handling = undefined;
    this.due.clear();
    this.top = 0;
    if (this.stored) this.step("restored", JSON.parse(JSON.stringify(this.stored)));
    this.covered = this.stored?.seq;
    this.step("connect");
  }

  step(...event) {
    for (const [effect, ...values] of this.core.step(this.now, this.random, ...event)) this[effect]?.(...values);
  }

  open(id) {
    this.tries++;
    this.sockets.set(id, { inbox: [] });
  }

  close(id) {
    this.sockets.delete(id);
  }

  send(id, text) {
    assert.ok(Buffer.byteLength(text) < 32_768);
    const socket = this.sockets.get(id);
    this.n = JSON.parse(text).n ?? this.n;
    assert.ok(socket?.isOpen, "a frame on a socket that is not open");
    if (JSON.parse(text).type === "streamer.ack") return this.#acknowledge(JSON.parse(text).ids);
    if (socket.isStalled || (!this.isHealthy && this.random() < 0.2)) return;
    const { type, n, hello, streams } = JSON.parse(text);
    if (type === "streamer.ping") return void socket.inbox.push({ type: "streamer.pong" });
    socket.isRegistered ||= hello;
    const { seq } = streams[0];
    const floor = this.messages.findIndex(({ isExpired }) => !isExpired);
    const after = seq ?? (floor < 0 ? this.messages.length : floor);
    const page = { type: "streamer.page", n, stream: "user", epoch: "e", after, through: after, top: this.messages.length, messages: [], missing: [], expires_in: 7200, now: 0 };
    while (page.through < page.top && page.messages.length < PAGE) {
      const message = this.messages[page.through++];
      if (!message.isExpired) page.messages.push({ seq: page.through, id: message.id, payload: message.payload, ack: message.ack });
      else if (page.missing.at(-1)?.to === page.through - 1) page.missing.at(-1).to++;
      else page.missing.push({ from: page.through, to: page.through, reason: "expired" });
    }
    socket.inbox.push(page);
  }

  #acknowledge(ids) {
    assert.ok(ids.length > 0 && ids.length <= 10);
    for (const id of ids) {
      assert.ok(this.due.delete(id), `${id} is not due`);
      assert.ok(!this.acknowledged.has(id), `${id} is acknowledged again`);
      this.acknowledged.add(id);
    }
  }

  deliver({ seq, id, kept }) {
    assert.equal(this.handling, undefined, "one message at a time");
    if (!kept) {
      this.handling = { id: "not kept" };
      return;
    }
    assert.ok(!this.completed.has(id), `${id} is shown again`);
    this.#cover(seq, seq, (message) => assert.equal(message.id, id));
    this.handling = { seq, id };
  }

  gap({ reason, from, to, count }) {
    assert.deepEqual([reason, count], ["expired", to - from + 1]);
    this.#cover(from, to, (message) => assert.ok(message.isExpired, "a gap without cause"));
  }

  /** Notes a range, before which only messages with ids of earlier ones may be left out. */
  #cover(from, to, check) {
    assert.ok(from > this.covered, `${from} after ${this.covered}`);
    this.#skipRepeated(from - 1);
    for (let seq = from; seq <= to; seq++) check(this.messages[seq - 1]);
    this.covered = to;
  }

  #skipRepeated(through) {
    while (this.covered < through) {
      const { id } = this.messages[this.covered];
      assert.ok(this.completed.has(id), `${this.covered + 1} is left out`);
      this.covered++;
    }
  }

  caughtUp() {
    this.#skipRepeated(this.top);
    assert.ok(this.covered >= this.top, `caught up with ${this.top} at ${this.covered}`);
  }

  store(stored) {
    // A position without messages begins the stream.
    this.covered ??= stored.seq;
    this.stored = stored;
    assert.ok(stored.ids.length <= 128);
  }

  /** Does something at random: `pick` chooses what it happens to. */
  act(kind, pick) {
    const sockets = [...this.sockets];
    const [id, socket] = sockets[pick % sockets.length] ?? [];
    const at = pick % Math.max(1, Math.min(4, socket?.inbox.length ?? 0));
    switch (kind) {
      case "publish": {
        const isRepeated = pick % 7 === 0 && this.messages.length > 0;
        const id = isRepeated ? this.messages.at(-1).id : `m${this.messages.length}`;
        const message = { id, payload: pick % 50 === 0 ? LARGE : pick, ack: pick % 3 > 0, isExpired: isRepeated && this.messages.at(-1).isExpired };
        this.messages.push(message);
        const frame = { type: "streamer.message", stream: "user", epoch: "e", seq: this.messages.length, id, payload: message.payload, ack: message.ack };
        for (const { isRegistered, isStalled, inbox } of this.sockets.values()) if (isRegistered && !isStalled) inbox.push(frame);
        break;
      }
      case "handshake":
        if (!socket || socket.isOpen) break;
        socket.isOpen = this.isHealthy || pick % 3 > 0;
        if (!socket.isOpen) this.sockets.delete(id);
        this.step(socket.isOpen ? "opened" : "closed", id);
        break;
      case "receive":
      case "repeat":
        if (!socket?.inbox.length) break;
        this.#receive(id, kind === "receive" ? socket.inbox.splice(at, 1)[0] : socket.inbox[at]);
        break;
      case "lose":
        socket?.inbox.splice(at, 1);
        break;
      case "garbage":
        if (socket?.isOpen) this.step("frame", id, GARBAGE[pick % GARBAGE.length]);
        break;
      case "drop":
        if (!socket) break;
        this.sockets.delete(id);
        this.step("closed", id);
        break;
      case "stall":
        if (socket) Object.assign(socket, { isStalled: true, inbox: [] });
        break;
      case "expire":
        for (const message of this.messages.slice(0, pick % (this.messages.length + 1))) message.isExpired = true;
        break;
      case "handle":
        if (!this.handling) break;
        this.#handle(pick % 4 === 1);
        break;
      case "reload":
        // The handler had its effect, and the position was not stored: the message is shown again.
        this.sockets.clear();
        this.#boot();
        break;
      case "check":
        this.step("check", pick % 2 === 0);
        break;
      case "wait":
        this.advance([1, 300, 1000, 5000, 30_000, 600_000][pick % 6]);
    }
    const open = [...this.sockets.values()].filter(({ isOpen }) => isOpen);
    assert.ok(this.sockets.size <= 2 && open.length <= 2);
  }

  #handle(failed) {
    const { seq, id } = this.handling;
    this.completed.add(id);
    this.handling = undefined;
    if (this.messages[seq - 1]?.ack && !failed) this.due.add(id);
    this.step("handled", failed);
  }

  #receive(id, frame) {
    if (frame.type === "streamer.page" && frame.n === this.n) this.top = frame.top;
    this.step("frame", id, JSON.stringify(frame));
  }

  advance(ms) {
    const end = this.now + ms;
    for (let wakes = 0; this.core.wakeAt() <= end; wakes++) {
      assert.ok(wakes < 10_000, "a timer that never rests");
      this.now = Math.max(this.now, this.core.wakeAt());
      this.step("woken");
    }
    this.now = end;
  }

  /** Ends all faults, and waits until nothing happens any more. */
  rest() {
    this.isHealthy = true;
    // A client that takes the mailbox for absent asks again on its next socket.
    while (this.sockets.size) this.act("drop", 0);
    for (let turn = 0; turn < 600; turn++) {
      for (let count = 0; count < 200; count++) {
        const [id, socket] = [...this.sockets].find(([, { isOpen, inbox }]) => !isOpen || inbox.length) ?? [];
        if (!socket && !this.handling) break;
        if (this.handling) this.act("handle", 0);
        else if (!socket.isOpen) this.act("handshake", [...this.sockets.keys()].indexOf(id));
        else this.#receive(id, socket.inbox.shift());
      }
      this.advance(2000);
    }
  }
}
