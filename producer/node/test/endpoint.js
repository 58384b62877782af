/** A scripted queue on loopback, which speaks the protocol of SQS. */

import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { SQSClient } from "@aws-sdk/client-sqs";

/**
 * How a call is answered: each entry by one of `taken`, `throttled`, `refused`, `unmentioned` (those without one are taken);
 * `{ error, message, date }` for the whole call; `lost`, without an answer, although the entries are on the queue, or `dropped`, the same
 * with nothing on the queue; `reset`, the connection is broken off, and `reset_after`, when the entries are on the queue.
 */

const FAILURES = {
  throttled: { Code: "RequestThrottled", SenderFault: true, Message: "scripted" },
  refused: { Code: "InvalidMessageContents", SenderFault: true, Message: "scripted" },
};

const md5 = (text) => createHash("md5").update(text).digest("hex");

export class Endpoint {
  /** The entries of each call, in the order of arrival. */
  calls = [];
  /** The entries that the queue has taken. */
  taken = [];
  #script;
  #server = createServer((request, response) => void this.#receive(request, response));

  constructor(script) {
    this.#script = script;
  }

  /** Begins a queue that answers the n-th call, from 0, by `script(n, entries)`. */
  static async open(script = () => "taken") {
    const endpoint = new Endpoint(script);
    await new Promise((resolve) => endpoint.#server.listen(0, "127.0.0.1", resolve));
    const base = `http://127.0.0.1:${endpoint.#server.address().port}`;
    endpoint.url = `${base}/123456789012/outbound`;
    endpoint.client = new SQSClient({
      endpoint: base,
      region: "eu-central-1",
      credentials: { accessKeyId: "test", secretAccessKey: "test" },
      maxAttempts: 1,
    });
    return endpoint;
  }

  get bodies() {
    return this.taken.map(({ MessageBody }) => MessageBody);
  }

  async close() {
    this.client.destroy();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #receive(request, response) {
    const chunks = [];
    request.on("error", () => {});
    response.on("error", () => {});
    for await (const chunk of request) chunks.push(chunk);
    const { Entries, MessageBody } = JSON.parse(Buffer.concat(chunks).toString());
    if (!Entries) return void response.end(JSON.stringify({ MessageId: "m", MD5OfMessageBody: md5(MessageBody) }));
    const answer = this.#script(this.calls.length, Entries);
    this.calls.push(Entries);
    if (answer === "lost" || answer === "reset_after") this.taken.push(...Entries);
    if (answer === "lost" || answer === "dropped") return;
    if (answer === "reset" || answer === "reset_after") return void request.socket.destroy();
    if (answer.error) return this.#refuse(response, answer);
    const results = Array.isArray(answer) ? answer : [];
    const [Successful, Failed] = [[], []];
    Entries.forEach((entry, index) => {
      const result = results[index] ?? "taken";
      if (result === "taken") {
        this.taken.push(entry);
        Successful.push({ Id: entry.Id, MessageId: "m", MD5OfMessageBody: md5(entry.MessageBody) });
      } else if (FAILURES[result]) Failed.push({ Id: entry.Id, ...FAILURES[result] });
    });
    response.writeHead(200, { "content-type": "application/x-amz-json-1.0" }).end(JSON.stringify({ Successful, Failed }));
  }

  #refuse(response, { error: code, message = "scripted", date = new Date() }) {
    const status = code.startsWith("Internal") ? 500 : 400;
    const type = { "content-type": "application/x-amz-json-1.0", date: date.toUTCString() };
    const headers = { ...type, "x-amzn-query-error": `${code};Sender` };
    response.writeHead(status, headers).end(JSON.stringify({ __type: "com.amazonaws.sqs#Modeled", message }));
  }
}

/** A queue in memory that answers at once, for tests in virtual time. `script` is that of `Endpoint`. */
export class MemoryQueue {
  calls = [];
  taken = [];

  constructor(script = () => "taken") {
    this.script = script;
  }

  get bodies() {
    return this.taken.map(({ MessageBody }) => MessageBody);
  }

  async send({ input: { Entries } }) {
    const answer = this.script(this.calls.length, Entries);
    this.calls.push(Entries);
    const result = (index) => (Array.isArray(answer) ? (answer[index] ?? "taken") : "taken");
    const taken = Entries.filter((_, index) => result(index) === "taken");
    this.taken.push(...taken);
    const failed = Entries.map((entry, index) => ({ Id: entry.Id, ...FAILURES[result(index)] })).filter(({ Code }) => Code);
    return { Successful: taken.map(({ Id }) => ({ Id })), Failed: failed };
  }
}

/** A queue that never answers. It has the signals of its calls. */
export class SilentQueue {
  signals = [];
  sizes = [];

  send({ input }, { abortSignal }) {
    this.signals.push(abortSignal);
    this.sizes.push(input.Entries.length);
    return new Promise((_, reject) => abortSignal.addEventListener("abort", () => reject(new Error("aborted"))));
  }
}
