// PostToConnection with the AWS SDK for JavaScript v3: Promise.all over a batch, or a pool of workers.
// usage: node post.mjs ENDPOINT IN_FLIGHT all|pool
import { createRequire } from "node:module";
import {
  ApiGatewayManagementApiClient,
  PostToConnectionCommand,
} from "@aws-sdk/client-apigatewaymanagementapi";

const [endpoint, inFlight, way] = [process.argv[2], Number(process.argv[3]), process.argv[4]];
const client = new ApiGatewayManagementApiClient({
  endpoint,
  requestHandler: { httpAgent: { maxSockets: inFlight }, httpsAgent: { maxSockets: inFlight } },
});
const Data = "x".repeat(300);
const post = () => client.send(new PostToConnectionCommand({ ConnectionId: "L0SM9cOFvHcCIhw=", Data }));

const until = async (end) => {
  let done = 0;
  if (way === "all") {
    while (Date.now() < end) {
      await Promise.all(Array.from({ length: inFlight }, post));
      done += inFlight;
    }
  } else {
    const worker = async () => {
      while (Date.now() < end) {
        await post();
        done += 1;
      }
    };
    await Promise.all(Array.from({ length: inFlight }, worker));
  }
  return done;
};

await until(Date.now() + 1000);
const started = Date.now();
const before = process.cpuUsage();
const done = await until(started + 3000);
const used = process.cpuUsage(before);
console.log(Math.round((done * 1000) / (Date.now() - started)));
console.log(((used.user + used.system) / done).toFixed(2));
const sdk = createRequire(import.meta.url)("@aws-sdk/client-apigatewaymanagementapi/package.json").version;
console.log(`AWS SDK for JavaScript ${sdk}, Node ${process.version}`);
