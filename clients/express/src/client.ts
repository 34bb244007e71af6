import type { IncomingMessage } from "node:http";
import { BlockList, isIP } from "node:net";

import { optionError } from "./options";

/** Which of the addresses in a request to believe. */
export interface ProxyOptions {
  /**
   * The proxies in front of the application: how many there are, or the addresses and networks (`10.0.0.0/8`) that they
   * are in. Default: none, and the address of the connection counts.
   */
  trustProxy?: false | number | string | readonly string[];
  /** The header in which they pass on the client's address. Default: `X-Forwarded-For`. */
  proxyHeader?: "X-Forwarded-For" | "Forwarded";
}

export const PROXY_OPTIONS = ["trustProxy", "proxyHeader"] as const;

/** What the application sees of the client, as the contract's ClientContext. */
export interface SeenClient {
  ipAddress: string;
  userAgent: string;
}

/** Finds out who sent a request. */
export class ClientReader {
  readonly #isTrusted: (address: string, hop: number) => boolean;
  readonly #addresses: (request: IncomingMessage) => string[];

  constructor(options: ProxyOptions) {
    this.#isTrusted = trustOf(options.trustProxy ?? false);
    const header = options.proxyHeader ?? "X-Forwarded-For";
    if (header !== "X-Forwarded-For" && header !== "Forwarded") {
      throw optionError("proxyHeader", header, '"X-Forwarded-For" or "Forwarded"');
    }
    this.#addresses = header === "Forwarded" ? forwarded : forwardedFor;
  }

  /** The address that the nearest trusted proxy saw, and the user agent. An unknown address is empty. */
  read(request: IncomingMessage): SeenClient {
    const userAgent = request.headers["user-agent"] ?? "";
    let address = plainAddress(request.socket.remoteAddress ?? "");
    const claimed = this.#addresses(request);
    for (let hop = 0; this.#isTrusted(address, hop); hop++) {
      const next = claimed.pop();
      if (next === undefined) {
        break;
      }
      address = plainAddress(next);
      if (address === "") {
        break; // "unknown", a name or nonsense: what is before it comes from somebody that nobody vouches for
      }
    }
    return { ipAddress: address, userAgent };
  }
}

function trustOf(trust: false | number | string | readonly string[]): (address: string, hop: number) => boolean {
  if (trust === false) {
    return () => false;
  }
  if (typeof trust === "number") {
    if (!Number.isInteger(trust) || trust < 0) {
      throw optionError("trustProxy", trust, "the number of proxies, 0 or more");
    }
    return (_address, hop) => hop < trust;
  }
  const networks = new BlockList();
  const entries = typeof trust === "string" ? trust.split(",") : trust;
  if (!Array.isArray(entries)) {
    throw optionError("trustProxy", trust, "false, a number of proxies, or addresses and networks");
  }
  for (const entry of entries) {
    addNetwork(networks, String(entry).trim());
  }
  return (address) => {
    const version = isIP(address);
    // No address: the connection is a Unix socket, which only programs of this machine can reach.
    return version === 0 ? address === "" : networks.check(address, version === 6 ? "ipv6" : "ipv4");
  };
}

function addNetwork(networks: BlockList, text: string): void {
  const [address = "", prefix, more] = text.split("/");
  const version = isIP(address);
  const bits = version === 6 ? 128 : 32;
  const length = prefix === undefined ? bits : /^\d{1,3}$/.test(prefix) ? Number(prefix) : Infinity;
  if (version === 0 || length > bits || more !== undefined) {
    throw optionError("trustProxy", text, 'an address or a network, such as "10.0.0.0/8"');
  }
  networks.addSubnet(address, length, version === 6 ? "ipv6" : "ipv4");
}

/** An IP address without port, brackets and zone; empty if the text is none. */
function plainAddress(text: string): string {
  let address = text.trim();
  const bracketed = /^\[([^\]]*)\](?::\d+)?$/.exec(address);
  if (bracketed !== null) {
    address = bracketed[1] ?? "";
  } else if (/^[\d.]+:\d+$/.test(address)) {
    address = address.slice(0, address.indexOf(":"));
  }
  address = address.replace(/%.*$/, "").replace(/^::ffff:(?=[\d.]+$)/i, "");
  return isIP(address) === 0 ? "" : address;
}

function forwardedFor(request: IncomingMessage): string[] {
  const header = request.headers["x-forwarded-for"];
  const text = Array.isArray(header) ? header.join(",") : (header ?? "");
  return text === "" ? [] : text.split(",");
}

/** The values of `for` in the header Forwarded (RFC 7239), one for each element; empty if an element has none. */
function forwarded(request: IncomingMessage): string[] {
  const header = request.headers["forwarded"];
  const text = Array.isArray(header) ? header.join(",") : (header ?? "");
  if (text === "") {
    return [];
  }
  return splitOutsideQuotes(text, ",").map((element) => {
    const parameters = splitOutsideQuotes(element, ";").map((parameter) => parameter.trim());
    const values = parameters.filter((parameter) => /^for=/i.test(parameter));
    const value = values.length === 1 ? (values[0] ?? "").slice(4) : "";
    return /^".*"$/.test(value) ? value.slice(1, -1).replace(/\\(.)/g, "$1") : value;
  });
}

function splitOutsideQuotes(text: string, separator: string): string[] {
  const parts: string[] = [];
  let part = "";
  let quoted = false;
  for (let index = 0; index < text.length; index++) {
    const character = text.charAt(index);
    if (quoted && character === "\\") {
      part += character + text.charAt(++index);
    } else if (character === separator && !quoted) {
      parts.push(part);
      part = "";
    } else {
      quoted = character === '"' ? !quoted : quoted;
      part += character;
    }
  }
  return [...parts, part];
}
