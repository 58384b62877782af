/** The position in the browser's storage. */

import { Unauthorized } from "./errors.js";
import { isId, isNumber } from "./frames.js";

/**
 * Creates the store of a client.
 * @param {import("./types.js").Mailbox | undefined} mailbox
 * @param {(error: unknown) => void} report takes errors of the storage, without which the client goes on
 */
export const createStore = ({ storage, key = "" } = {}, report) => {
  let name = "";

  return {
    /**
     * Takes the token of a connection. Returns what is stored for its user if it is the first one.
     * @param {string} token
     * @returns {import("./types.js").Stored | undefined}
     * @throws {Unauthorized} if it is the token of another user than the first one
     */
    identify(token) {
      const own = `streamer:${key}:${hash(token)}`;
      if (name === own) return;
      if (name) throw new Unauthorized("another user's token: use another client");
      name = own;
      try {
        const { epoch, seq, ids } = JSON.parse(storage?.getItem(name) ?? "{}");
        if (isId(epoch) && isNumber(seq)) return { epoch, seq, ids: [...ids] };
      } catch (error) {
        report(error);
      }
    },
    /** @param {import("./types.js").Stored} stored */
    save(stored) {
      try {
        storage?.setItem(name, JSON.stringify(stored));
      } catch (error) {
        report(error);
      }
    },
  };
};

/**
 * Returns a hash of 32 bits of the token's issuer, user and tenant; the same one for all tokens that are no JWT. Where
 * two users have one hash, the server notices that the position has another epoch.
 * @param {string} token
 */
const hash = (token) => {
  let hash = 0;
  try {
    const { iss, sub, tenant_id } = JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
    for (const character of `${[iss, sub, tenant_id]}`) hash = (hash * 31 + character.charCodeAt(0)) | 0;
  } catch {
    // The server may accept other tokens.
  }
  return hash;
};
