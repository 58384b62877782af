/**
 * The types of frames in `types.js` are those of the JSON Schemas. A test of the package `streamer-message` holds the
 * schemas and the Rust types together.
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const CLIENT = fileURLToPath(new URL("..", import.meta.url));
const PRIMITIVES = { string: "string", integer: "number", number: "number", boolean: "boolean", null: "null" };
const IGNORED = ["$schema", "$defs", "title", "description", "default", "format", "required"];
const BOUNDS = ["minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "pattern"];

/** Returns the TypeScript type of a schema. A keyword that it does not know is an error. */
function toType(schema, defs) {
  const known = ["$ref", "const", "oneOf", "anyOf", "properties", "items", "type", ...IGNORED, ...BOUNDS];
  assert.deepEqual(Object.keys(schema).filter((keyword) => !known.includes(keyword)), [], "unknown keywords");
  const parts = [];
  if (schema.$ref) parts.push(toType(defs[schema.$ref.replace("#/$defs/", "")], defs));
  if ("const" in schema) parts.push(JSON.stringify(schema.const));
  const union = schema.oneOf ?? schema.anyOf;
  if (union) parts.push(union.map((part) => `(${toType(part, defs)})`).join(" | "));
  if (schema.properties) parts.push(toObject(schema, defs));
  if (schema.items) parts.push(`(${toType(schema.items, defs)})[]`);
  const isNarrower = "const" in schema || schema.properties || schema.items;
  if (schema.type && !isNarrower) parts.push([schema.type].flat().map((type) => PRIMITIVES[type] ?? assert.fail(type)).join(" | "));
  return parts.length ? parts.map((part) => `(${part})`).join(" & ") : "unknown";
}

function toObject({ properties, required = [] }, defs) {
  const fields = Object.entries(properties).map(
    ([name, schema]) => `${name}${required.includes(name) ? "" : "?"}: ${toType(schema, defs)};`,
  );
  return `{ ${fields.join(" ")} }`;
}

/** Returns the compiler's errors for a file in the package. */
function compile(text) {
  const folder = mkdtempSync(`${CLIENT}test/.types-`);
  try {
    writeFileSync(`${folder}/schemas.ts`, text);
    const tsc = `${CLIENT}node_modules/typescript/bin/tsc`;
    const options = ["--ignoreConfig", "--noEmit", "--strict", "--allowJs", "--checkJs", "--skipLibCheck", "--target", "es2022", "--module", "nodenext"];
    execFileSync(process.execPath, [tsc, ...options, `${folder}/schemas.ts`], { encoding: "utf8", stdio: "pipe" });
    return "";
  } catch (error) {
    return `${error.stdout ?? ""}${error.stderr ?? ""}` || String(error);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Each type of `types.js` with its file, which the compiler compares field by field. */
const comparison = (change = (schema) => schema) => {
  const files = { ServerFrame: "server-frame", ClientFrame: "client-frame", ClientMessage: "client-message" };
  const types = Object.entries(files).map(([name, file]) => {
    const schema = change(JSON.parse(readFileSync(new URL(`../../message/schema/${file}.json`, import.meta.url), "utf8")));
    return `same<import("../../types.js").${name}, ${toType(schema, schema.$defs)}>(true);`;
  });
  return `
    type Flat<T> = T extends (infer U)[] ? Flat<U>[] : T extends object ? { [K in keyof T]: Flat<T[K]> } : T;
    type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
    declare function same<A, B>(value: Same<Flat<A>, Flat<B>>): void;
    ${types.join("\n")}
  `;
};

test("types are those of the schemas", () => assert.equal(compile(comparison()), ""));

test("unknown schema field fails the comparison", () => {
  const addField = (schema) => {
    if (schema.title === "ClientMessage") schema.properties.priority = { type: "integer" };
    return schema;
  };
  assert.match(compile(comparison(addField)), /'true' is not assignable to parameter of type 'false'/);
});
