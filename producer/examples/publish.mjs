// Sends a message to a connection: node publish.mjs QUEUE_URL CONNECTION TEXT
import { randomUUID } from "node:crypto";
import { SendMessageCommand, SQSClient } from "@aws-sdk/client-sqs";

const [QueueUrl, connection, data] = process.argv.slice(2);
if (!QueueUrl || !connection || !data) {
  console.error("usage: node publish.mjs QUEUE_URL CONNECTION TEXT, each of them not empty");
  process.exit(1);
}
const id = randomUUID();
const message = {
  version: 1,
  id,
  to: { connection },
  payload: { type: "response", data, id },
};
// SQS refuses U+FFFE and U+FFFF, so both are written as JSON escapes.
const escape = (character) => `\\u${character.charCodeAt(0).toString(16)}`;
const MessageBody = JSON.stringify(message).replace(/[\ufffe\uffff]/g, escape);
await new SQSClient({}).send(new SendMessageCommand({ QueueUrl, MessageBody }));
console.log("queued", id);
