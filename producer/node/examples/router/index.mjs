/**
 * A router: the Lambda behind `$default` of a WebSocket API. It answers clients through the queue, so it returns as soon as
 * the queue has the answer, and slow or closed connections do not delay it.
 *
 * A request is `{"type": "echo", "request_id": "…", "text": "…"}`, or has the type `ping` or `report` and no text. A report
 * with `"keep": true` is for all devices of the client's user, and its result waits for those that are away.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { DynamoDBClient, GetItemCommand } from "@aws-sdk/client-dynamodb";
import { Message, MessageError, Producer, percentOf } from "streamer-producer";

const { CONNECTIONS_TABLE, QUEUE_URL } = process.env;

// Outside the handler, so that all invocations of an environment share them.
const producer = new Producer(QUEUE_URL);
const dynamo = new DynamoDBClient({});

/** The longest time that a report takes, in seconds. The Lambda's timeout must be longer. */
const MAX_REPORT_SECONDS = 20;
const REPORT_SECONDS = 0.2;
const UPDATES = 10;

/** The time limits of an update and of the end of a report in milliseconds: the queue may fail for a while. */
const UPDATE_TIMEOUT = 1000;
const END_TIMEOUT = 5000;

const EXPECTED =
  "expected a JSON object with the `type` echo and a `text`, with the `type` ping, or with the `type` report and optionally " +
  "`seconds` and `keep`; and optionally a `request_id` of 1 to 128 characters";

const FAILED = "the request could not be answered";

export async function handler(event) {
  const { connectionId } = event.requestContext;
  const { request, requestId } = requestOf(event.body);
  const to = Message.connection(connectionId);
  const reply = requestId === undefined ? to : to.request(requestId);
  const log = (level, message) => console.log(JSON.stringify({ level, request_id: requestId, message }));
  if (!request) {
    log("WARN", "invalid request");
    await producer.send(reply.error("invalid_request", EXPECTED));
  } else {
    try {
      await answer(request, reply, connectionId, log);
    } catch (error) {
      // The cause is logged. The client only learns that no further answer will come.
      log("ERROR", error.message);
      await producer.send(reply.error("internal", FAILED));
    }
  }
  // Without a body, because API Gateway would send it to the client in addition to the answer.
  return { statusCode: 200 };
}

/** Returns a client's request, if it is valid, and its id, so that the answer to an invalid request can name it. */
function requestOf(body) {
  try {
    const request = JSON.parse(body);
    const requestId = request.request_id ?? undefined;
    if (requestId !== undefined) Message.connection("any").request(requestId);
    return { requestId, request: isValid(request) ? request : undefined };
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError || error instanceof MessageError) return {};
    throw error;
  }
}

function isValid({ type, text, seconds = REPORT_SECONDS }) {
  if (type === "echo") return typeof text === "string";
  return type === "ping" || (type === "report" && Number.isFinite(seconds) && seconds >= 0);
}

async function answer(request, reply, connection, log) {
  if (request.type === "echo") return producer.send(reply.response(request.text));
  if (request.type === "ping") return producer.send(reply.response("pong"));
  if (!request.request_id) return producer.send(reply.error("invalid_request", "a report needs a `request_id`"));
  const to = request.keep === true ? await userOf(connection, request.request_id) : reply;
  // The client has left and sends its request again on its next connection.
  if (!to) return undefined;
  await producer.send(to.acknowledgment("the report is being written"));
  return writeReport(request.keep === true ? to.keep({ hours: 1 }) : to, request.seconds, log);
}

/** Addresses the user of a connection, since a report may outlive the connection. */
async function userOf(connection, requestId) {
  const key = { connection_id: { S: connection } };
  const { Item } = await dynamo.send(new GetItemCommand({ TableName: CONNECTIONS_TABLE, Key: key }));
  return Item && Message.user(Item.tenant_id.S, Item.user_id.S).request(requestId);
}

async function writeReport(to, seconds = REPORT_SECONDS, log) {
  const time = Math.min(seconds, MAX_REPORT_SECONDS) * 1000;
  // More often than the default, to show how updates that come too fast supersede each other.
  const progress = producer.progress(to, { minInterval: 20, timeout: UPDATE_TIMEOUT });
  try {
    for (let update = 1; update <= UPDATES; update += 1) {
      // A real router would write a part of the report here.
      await sleep(time / UPDATES);
      // The report goes on without an update that was not sent.
      await progress.update(percentOf(update, UPDATES), "writing").catch((error) => log("WARN", error.message));
    }
    await progress.complete({ rows: 1280 }, { timeout: END_TIMEOUT });
  } catch (error) {
    log("ERROR", error.message);
    // Every recipient of the report waits for its end.
    await progress.fail("internal", FAILED, undefined, { timeout: END_TIMEOUT });
  }
}
