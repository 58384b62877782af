// Checked by `npm run types`: the interface as a user of TypeScript sees it.
import { RequestError, StreamerClient, Unauthorized } from "../index.js";

type Incoming = { type: "order"; id: string };
type Outgoing = { type: "report"; month: number };

const client = new StreamerClient<Incoming, Outgoing>("wss://example.com/live", {
  token: async ({ refused }: { refused: boolean }) => {
    if (refused) throw new Unauthorized("signed out");
    return "token";
  },
  mailbox: { from: "now", storage: sessionStorage },
});
client.on("message", async ({ data, kept }) => console.log(data.id, kept satisfies boolean));
client.on("state", ({ state, retryIn }) => console.log(state === "caughtUp", retryIn));
client.on("gap", ({ from, to, count, reason }) => console.log(from, to, count, reason));
// @ts-expect-error no such event
client.on("messages", () => {});
// @ts-expect-error no such request
client.request({ type: "other" });

export async function report() {
  const job = client.request<{ rows: number }>({ type: "report", month: 7 });
  for await (const { progress } of job) console.log(progress.toFixed());
  try {
    return (await job).rows;
  } catch (error) {
    if (error instanceof RequestError) return error.code;
    throw error;
  }
}

export async function read() {
  for await (const { data } of client.messages()) console.log(data.type);
}
