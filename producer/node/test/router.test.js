import assert from "node:assert/strict";
import { register } from "node:module";
import { after, before, beforeEach, mock, test } from "node:test";
import { Endpoint } from "./endpoint.js";

// Of the router's packages, this one is here, and the table has one connection.
const TABLE = `
  export class GetItemCommand {}
  export class DynamoDBClient {
    async send() {
      return { Item: { tenant_id: { S: "acme" }, user_id: { S: "anna" } } };
    }
  }`;
const PACKAGES = {
  "streamer-producer": new URL("../index.js", import.meta.url).href,
  "@aws-sdk/client-dynamodb": `data:text/javascript,${encodeURIComponent(TABLE)}`,
};
const HOOK = `
  const packages = ${JSON.stringify(PACKAGES)};
  export const resolve = (name, context, next) =>
    packages[name] ? { url: packages[name], shortCircuit: true } : next(name, context);`;

let queue, handler;
let script;
const environment = { ...process.env };

before(async () => {
  queue = await Endpoint.open((_, entries) => entries.map(({ MessageBody }) => script(JSON.parse(MessageBody).payload)));
  Object.assign(process.env, {
    AWS_ENDPOINT_URL_SQS: new URL(queue.url).origin,
    AWS_REGION: "eu-central-1",
    AWS_ACCESS_KEY_ID: "test",
    AWS_SECRET_ACCESS_KEY: "test",
    QUEUE_URL: queue.url,
  });
  register(`data:text/javascript,${encodeURIComponent(HOOK)}`);
  ({ handler } = await import("../examples/router/index.mjs"));
  mock.method(console, "log", () => {});
});
beforeEach(() => {
  script = () => "taken";
  queue.taken = [];
});
after(() => {
  process.env = environment;
  return queue.close();
});

/** Returns the audience, type, request and error code of each message that the queue gets for a request, or for its JSON text. */
async function answers(request) {
  await handler({ requestContext: { connectionId: "c" }, body: typeof request === "string" ? request : JSON.stringify(request) });
  return queue.bodies.map((body) => {
    const { to, payload: { type, request_id, error } } = JSON.parse(body);
    return [Object.keys(to)[0], type, request_id, error?.code];
  });
}

test("answer to an invalid request names it", async () => {
  assert.deepEqual(await answers({ type: "nothing", request_id: "r" }), [["connection", "error", "r", "invalid_request"]]);
  queue.taken = [];
  assert.deepEqual(await answers({ type: "ping", request_id: "" }), [["connection", "error", undefined, "invalid_request"]]);
  queue.taken = [];
  assert.deepEqual(await answers(null), [["connection", "error", undefined, "invalid_request"]]);
});

test("report takes a number of seconds", async () => {
  for (const seconds of [-1, "abc", "0.1", null, "Infinity"]) {
    queue.taken = [];
    const request = { type: "report", request_id: "r", seconds };
    // JSON text has no infinity, but numbers that are too large.
    const body = JSON.stringify(request).replace(`"Infinity"`, "1e999");
    assert.deepEqual(await answers(body), [["connection", "error", "r", "invalid_request"]], body);
  }
});

test("report goes on without its updates", async () => {
  script = ({ type }) => (type === "progress" ? "refused" : "taken");
  const sent = await answers({ type: "report", request_id: "r", seconds: 0 });
  assert.deepEqual(sent, [["connection", "acknowledgment", "r", undefined], ["connection", "complete", "r", undefined]]);
});

test("report that failed ends for its recipients", async () => {
  script = ({ type }) => (type === "complete" ? "refused" : "taken");
  const sent = await answers({ type: "report", request_id: "r", seconds: 0, keep: true });
  assert.deepEqual(sent.filter(([, type]) => type !== "progress"), [
    ["user", "acknowledgment", "r", undefined],
    ["user", "error", "r", "internal"],
  ]);
});
