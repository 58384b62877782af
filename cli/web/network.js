/**
 * The network of one device: a `WebSocket` for the client, with a cable that can be pulled.
 *
 * A pulled cable closes no socket. Frames of either direction are lost, and new sockets fail. A socket that was open
 * stays silent for good, as after a change of network, and the server goes on posting to it. When the cable is back, the
 * device gets the event `online`, like a browser.
 */

/**
 * Creates a network.
 * @param {object} observer is called for each event of a socket
 * @param {(text: string, isLost: boolean) => void} observer.sent
 * @param {(text: string, isLost: boolean, deliver: () => void) => void} observer.received calls `deliver` to hand the
 *   frame to the client
 * @param {(name: "opened" | "closed" | "failed", code?: number) => void} observer.changed
 */
export const createNetwork = (observer) => {
  let isOnline = true;
  const sockets = new Set();
  const events = new EventTarget();

  class DeviceSocket {
    constructor(url, protocols) {
      if (!isOnline) {
        setTimeout(() => this.fail());
        return;
      }
      const socket = new WebSocket(url, protocols);
      this.socket = socket;
      sockets.add(this);
      socket.onopen = () => {
        if (this.isCut) return socket.close();
        observer.changed("opened");
        this.onopen?.();
      };
      socket.onmessage = ({ data }) => {
        if (this.isCut) observer.received(data, true, () => {});
        else observer.received(data, false, () => this.onmessage?.({ data }));
      };
      socket.onclose = ({ code }) => {
        sockets.delete(this);
        if (this.isCut) return;
        observer.changed("closed", code);
        this.onclose?.({ code });
      };
    }

    send(text) {
      observer.sent(text, !!this.isCut);
      if (!this.isCut) this.socket?.send(text);
    }

    close(code) {
      if (this.isCut) observer.changed("closed");
      // A browser warns about a handshake that is given up, so it ends first.
      if (this.isOpening()) this.isCut = true;
      else this.socket?.close(code);
    }

    isOpening() {
      return this.socket?.readyState === WebSocket.CONNECTING;
    }

    /** Cuts the socket. A handshake fails at once, as in a browser. */
    cut() {
      const isOpening = this.isOpening() && !this.isCut;
      this.isCut = true;
      if (isOpening) this.fail();
    }

    fail() {
      this.isCut = true;
      observer.changed("failed");
      this.onerror?.();
      this.onclose?.({ code: 1006 });
    }
  }

  return {
    WebSocket: DeviceSocket,

    /** The part of `window` that the client uses. */
    window: {
      document,
      setTimeout: (...values) => setTimeout(...values),
      clearTimeout: (timer) => clearTimeout(timer),
      addEventListener(type, call) {
        window.addEventListener(type, call);
        events.addEventListener(type, call);
      },
      removeEventListener(type, call) {
        window.removeEventListener(type, call);
        events.removeEventListener(type, call);
      },
    },

    isOnline: () => isOnline,

    /** Pulls the cable. */
    pull() {
      isOnline = false;
      for (const socket of sockets) socket.cut();
      events.dispatchEvent(new Event("offline"));
    },

    /** Plugs the cable in again. */
    plug() {
      isOnline = true;
      events.dispatchEvent(new Event("online"));
    },

    /** Closes the sockets of a device that is removed. */
    end() {
      for (const socket of sockets) socket.close(1000);
    },
  };
};
