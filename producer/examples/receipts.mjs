// Sends a message and waits for its receipt: node receipts.mjs QUEUE_URL RECEIPTS_QUEUE_URL CONNECTION TEXT
import { randomUUID } from "node:crypto";
import { DeleteMessageCommand, ReceiveMessageCommand, SendMessageCommand, SQSClient } from "@aws-sdk/client-sqs";

const [queue, receipts, connection, data] = process.argv.slice(2);
if (!queue || !receipts || !connection || !data) {
  console.error("usage: node receipts.mjs QUEUE_URL RECEIPTS_QUEUE_URL CONNECTION TEXT, each of them not empty");
  process.exit(1);
}
const LIMIT_SECONDS = 120;

// From the best to the worst.
const OUTCOMES = [
  "acknowledged", "delivered", "kept", "expanded", "exhausted", "rejected",
  "poison", "expired", "superseded", "gone", "no_recipient",
];

/** Returns the receipt in a message of the receipts queue, or undefined for any other message. */
function receiptOf(body) {
  try {
    const { type, data } = JSON.parse(body);
    const isKnown = type === "streamer.receipt" && data.version === 1 && OUTCOMES.includes(data.outcome);
    return isKnown ? data : undefined;
  } catch {
    return undefined;
  }
}

/** Of receipts about the same thing, the best one. */
const best = new Map();

/** Receipts arrive at least once and in any order: the better outcome stays. */
function merge(receipt) {
  const about = JSON.stringify([receipt.id, receipt.part, receipt.connection]);
  const known = best.get(about);
  if (!known || OUTCOMES.indexOf(receipt.outcome) < OUTCOMES.indexOf(known.outcome)) best.set(about, receipt);
}

const sqs = new SQSClient({});
const id = randomUUID();
const message = { version: 1, id, to: { connection }, payload: { type: "response", data, id }, receipt: true };
// SQS refuses U+FFFE and U+FFFF, so both are written as JSON escapes.
const escape = (character) => `\\u${character.charCodeAt(0).toString(16)}`;
const MessageBody = JSON.stringify(message).replace(/[\ufffe\uffff]/g, escape);
await sqs.send(new SendMessageCommand({ QueueUrl: queue, MessageBody }));
console.log("queued", id);

const deadline = Date.now() + LIMIT_SECONDS * 1000;
const hasReceipt = () => [...best.values()].some((receipt) => receipt.id === id);
while (!hasReceipt() && Date.now() < deadline) {
  const receive = { QueueUrl: receipts, MaxNumberOfMessages: 10, WaitTimeSeconds: 20 };
  const { Messages = [] } = await sqs.send(new ReceiveMessageCommand(receive));
  for (const { Body, ReceiptHandle } of Messages) {
    const receipt = receiptOf(Body);
    // A message that is no receipt stays on the queue, for its redrive policy.
    if (!receipt) continue;
    merge(receipt);
    await sqs.send(new DeleteMessageCommand({ QueueUrl: receipts, ReceiptHandle }));
  }
}
for (const { id, outcome, connections } of best.values()) console.log(outcome, id, JSON.stringify(connections));
if (!hasReceipt()) {
  console.error(`no receipt of ${id} within ${LIMIT_SECONDS} s: is there another consumer?`);
  process.exit(1);
}
