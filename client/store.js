/** The position in the browser's storage. */

import { Unauthorized } from "./errors.js";
import { isId, isNumber } from "./stream.js";

/**
 * Creates the store of a client.
 * @param {import("./types.js").Mailbox | undefined} mailbox
 * @param {(error: unknown) => void} report takes errors of the storage, without which the client goes on
 */
export function createStore({ storage, key = "" } = {}, report) {
  let name = "";

  return {
    /**
     * Takes the token of a connection. Returns what is stored for its user if it is the first one.
     * @param {string} token
     * @returns {import("./stream.js").Stored | undefined}
     * @throws {Unauthorized} if it is the token of another user than the first one
     */
    identify(token) {
      const own = `streamer:${key}:${hash(claims(token))}`;
      if (name === own) return;
      if (name) throw new Unauthorized("the token is another user's: create a client for each user");
      name = own;
      try {
        const { epoch, seq, ids } = JSON.parse(storage?.getItem(name) ?? "{}");
        if (isId(epoch) && isNumber(seq)) return { epoch, seq, ids: ids.filter(isId) };
      } catch (error) {
        report(error);
      }
    },
    /** @param {import("./stream.js").Stored} stored */
    save(stored) {
      try {
        storage?.setItem(name, JSON.stringify(stored));
      } catch (error) {
        report(error);
      }
    },
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
