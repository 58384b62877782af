/** The position in the browser's storage. */

import { Unauthorized } from "./errors.js";
import { isId } from "./stream.js";

/**
 * Creates the store of a client.
 * @param {import("./types.js").Mailbox | undefined} mailbox
 * @param {(error: unknown) => void} report takes errors of the storage, without which the client goes on
 */
export function createStore({ storage, key = "" } = {}, report) {
  /** @type {string | undefined} */
  let name;

  /** @param {() => any} call */
  const attempt = (call) => {
    try {
      return call();
    } catch (error) {
      report(error);
    }
  };

  return {
    /**
     * Takes the token of a connection. Returns what is stored for its user if it is the first one.
     * @param {string} token
     * @returns {import("./stream.js").Stored | undefined}
     * @throws {Unauthorized} if it is the token of another user than the first one
     */
    identify(token) {
      const own = `streamer:${key}:${hash(claims(token))}`;
      if (name && name !== own) throw new Unauthorized("the token is another user's: create a client for each user");
      if (name) return;
      name = own;
      const stored = attempt(() => JSON.parse(storage?.getItem(own) ?? "null"));
      const isValid = isId(stored?.epoch) && stored.seq >= 0 && Number.isSafeInteger(stored.seq);
      return isValid && Array.isArray(stored.ids) ? stored : undefined;
    },
    /** @param {import("./stream.js").Stored} stored */
    save: ({ epoch, seq, ids }) => attempt(() => storage?.setItem(name ?? "", JSON.stringify({ epoch, seq, ids }))),
  };
}

/**
 * Returns the issuer, the user and the tenant of a token; nothing for a token that is no JWT.
 * @param {string} token
 */
function claims(token) {
  try {
    const { iss, sub, tenant_id } = JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
    return JSON.stringify([iss, sub, tenant_id]);
  } catch {
    return "";
  }
}

/**
 * Returns the FNV-1a hash of 32 bits. The epochs of two users with one hash differ, which the server notices.
 * @param {string} text
 */
function hash(text) {
  let hash = 0x811c9dc5;
  for (const character of text) hash = Math.imul(hash ^ /** @type {number} */ (character.codePointAt(0)), 0x01000193);
  return (hash >>> 0).toString(36);
}
