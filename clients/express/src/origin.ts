import type { IncomingMessage } from "node:http";

import { optionError } from "./options";

/**
 * Where a request comes from, as the browser says: a page of this site (or the address bar); another site; or there is
 * no word on it, because it is no browser, or an old one over HTTP.
 */
export type Origin = "ours" | "other" | "unstated";

/** Judges the headers `Sec-Fetch-Site` and `Origin`, which pages cannot set (Fetch standard). */
export class OriginCheck {
  readonly #trusted: Set<string>;

  constructor(trustedOrigins: readonly string[] = []) {
    if (!Array.isArray(trustedOrigins)) {
      throw optionError("trustedOrigins", trustedOrigins, 'origins, such as ["https://shop.example"]');
    }
    this.#trusted = new Set(
      trustedOrigins.map((text: unknown) => {
        const url = typeof text === "string" ? parsed(text) : undefined;
        if (url === undefined || url.origin === "null" || url.origin !== String(text).replace(/\/$/, "")) {
          throw optionError("trustedOrigins", text, 'scheme and host only, such as "https://shop.example"');
        }
        return url.origin;
      }),
    );
  }

  judge(request: IncomingMessage): Origin {
    const origin = request.headers.origin;
    if (origin !== undefined && this.#trusted.has(origin)) {
      return "ours";
    }
    const site = request.headers["sec-fetch-site"];
    if (site !== undefined) {
      return site === "same-origin" || site === "none" ? "ours" : "other";
    }
    if (origin === undefined) {
      return "unstated";
    }
    return namesHost(origin, request.headers.host ?? "") ? "ours" : "other";
  }
}

function parsed(text: string): URL | undefined {
  return URL.canParse(text) ? new URL(text) : undefined;
}

/** Whether an origin has this host and port. The scheme is unknown here: a proxy may have ended TLS. */
function namesHost(origin: string, host: string): boolean {
  const url = parsed(origin); // also "null", which pages without an origin send
  const own = url === undefined ? undefined : parsed(`${url.protocol}//${host}`);
  return url !== undefined && own !== undefined && url.host !== "" && url.host === own.host;
}
