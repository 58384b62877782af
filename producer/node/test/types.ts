// Checked by `npm run types`: the interface as a user of TypeScript sees it.
import { SQSClient } from "@aws-sdk/client-sqs";
import { Message, MessageBuilder, MessageError, Producer, Progress, ProgressError, SendAllError, SendError, percentOf } from "../index.js";
import type { Duration, MessageKind, ProducerOptions, ProgressKind, ProgressOptions, SendKind, SendOptions } from "../index.js";

const options: ProducerOptions = { client: new SQSClient({}), timeout: 5000 };
const producer = new Producer(process.env.QUEUE_URL, options);
const limit: SendOptions = { timeout: 2000, signal: AbortSignal.timeout(2000) };
const rate: ProgressOptions = { minInterval: 200, ...limit };
const week: Duration = { days: 7 };
const reply = Message.user("acme", "anna").request("r").keep(week).receipt();
const message: Message = reply.response({ rows: 7 });
// @ts-expect-error a bare number has no unit
reply.expiresIn(5);
// @ts-expect-error a builder has no content yet
producer.send(reply);
// @ts-expect-error only a builder makes messages
new Message({});
// @ts-expect-error only `Message` makes builders
new MessageBuilder({});
// @ts-expect-error only a producer makes handles of progress
new Progress(producer, reply, {});

export async function report(rows: string[]) {
  await using progress = producer.progress(reply, rate);
  for (const [row, text] of rows.entries()) await progress.update(percentOf(row, rows.length), text);
  await progress.complete({ rows: rows.length }, limit);
}

export function kindOf(error: unknown): MessageKind | ProgressKind | SendKind | undefined {
  return error instanceof MessageError || error instanceof ProgressError || error instanceof SendError ? error.kind : undefined;
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
