/** The cases of `message/schema/producer-vectors.json`, which producers in any language share. */

import { readFileSync } from "node:fs";
import { Message } from "../index.js";

const FILE = new URL("../../../message/schema/producer-vectors.json", import.meta.url);

export const VECTORS = expanded(JSON.parse(readFileSync(FILE, "utf8")));

/** Replaces each `{"$text": […]}` by the text that it describes. */
function expanded(value) {
  if (Array.isArray(value)) return value.map(expanded);
  if (typeof value !== "object" || value === null) return value;
  if (value.$text) return value.$text.map((part) => (typeof part === "string" ? part : part[0].repeat(part[1]))).join("");
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, expanded(field)]));
}

/** Returns the builder for an audience. */
export function to(audience) {
  const [[kind, value]] = Object.entries(audience);
  return kind === "user" ? Message.user(value.tenant, value.user) : Message[kind](value);
}

const OPTIONS = {
  id: (builder, id) => builder.id(id),
  request: (builder, id) => builder.request(id),
  supersedable: (builder, value) => builder.supersedable(value),
  expires_in_ms: (builder, milliseconds) => builder.expiresIn({ milliseconds }),
  expires_at_ms: (builder, milliseconds) => builder.expiresAt(new Date(milliseconds)),
  keep_s: (builder, seconds) => builder.keep({ seconds }),
  receipt: (builder) => builder.receipt(),
  trace: (builder, header) => builder.trace(header),
  fair_queue_tenant: (builder, tenant) => builder.fairQueueTenant(tenant),
};

export const withOptions = (builder, options) =>
  Object.entries(options).reduce((builder, [name, value]) => OPTIONS[name](builder, value), builder);

const CONTENTS = {
  acknowledgment: (builder, { message }) => builder.acknowledgment(message),
  progress: (builder, { percent, message, details }) => builder.progress(percent, message, details),
  response: (builder, data) => builder.response(data),
  complete: (builder, result) => builder.complete(result),
  error: (builder, { code, message, details }) => builder.error(code, message, details),
  payload: (builder, value) => builder.payload(value),
  json: (builder, text) => builder.json(text),
};

export function withContent(builder, content) {
  const [[kind, value]] = Object.entries(content);
  return CONTENTS[kind](builder, value);
}

/** Returns the n-th message of a case with a scripted queue, with a body of so many bytes, or a short one. */
export function message({ same_recipient }, number, bytes) {
  const builder = same_recipient ? Message.connection("c").request("r") : Message.connection(`c${number}`);
  const build = (padding) => builder.id(`m${number}`).payload("x".repeat(padding));
  if (bytes === undefined) return build(0);
  return build(bytes - Buffer.byteLength(build(0).bodies()[0]));
}
