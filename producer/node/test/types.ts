// Checked by `npm run types`: the interface as a user of TypeScript sees it.
import { SQSClient } from "@aws-sdk/client-sqs";
import { Message, MessageError, Producer, SendAllError, SendError, percentOf } from "../index.js";

const producer = new Producer("https://sqs.eu-central-1.amazonaws.com/123456789012/outbound", {
  client: new SQSClient({ maxAttempts: 1 }),
  timeout: 5000,
});
const reply = Message.user("acme", "anna").request("r").keep({ days: 7 }).receipt();
const message: Message = reply.response({ rows: 7 });
// @ts-expect-error a bare number has no unit
reply.expiresIn(5);
// @ts-expect-error a builder has no content yet
producer.send(reply);

export async function report(rows: string[]) {
  await using progress = producer.progress(reply, { minInterval: 200, timeout: 2000 });
  for (const [row, text] of rows.entries()) await progress.update(percentOf(row, rows.length), text);
  await progress.complete({ rows: rows.length });
}

export async function sendAll(messages: Iterable<Message>, signal: AbortSignal) {
  try {
    await producer.send(message, { signal });
    await producer.sendAll(messages, { timeout: 60_000 });
  } catch (error) {
    if (error instanceof SendAllError) return error.unsent.map(({ id, index }) => `${index}: ${id}`);
    if (error instanceof SendError && error.isQueueFault) return error.code;
    if (error instanceof MessageError && error.kind === "payload_too_large") return error.message;
    throw error;
  }
}
