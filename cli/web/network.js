/**
 * The network of one device: a `WebSocket` for the client, which can go offline.
 *
 * Going offline closes no socket. Frames of either direction are lost, and new sockets fail. A socket that was open
 * stays silent for good, as after a change of network, and the server goes on posting to it. If the client closes it,
 * the server learns of that when the device is back. The device then gets the event `online`, like a browser.
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
        if (this.isEnded) return this.end();
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

    close() {
      if (this.isCut) observer.changed("closed");
      if (this.isOpening()) this.isCut = true;
      this.end();
    }

    /**
     * Closes the browser's socket once the device is online and the handshake has ended: a browser warns about a
     * handshake that is given up.
     */
    end() {
      this.isEnded = true;
      if (isOnline && this.socket?.readyState === WebSocket.OPEN) this.socket.close(1000);
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
      this.end();
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

    goOffline() {
      isOnline = false;
      for (const socket of sockets) socket.cut();
    },

    comeBack() {
      isOnline = true;
      for (const socket of sockets) if (socket.isEnded) socket.end();
      events.dispatchEvent(new Event("online"));
    },

    /** Closes the sockets of a device that is removed, even if it is offline. */
    end() {
      isOnline = true;
      for (const socket of sockets) socket.end();
    },
  };
};
