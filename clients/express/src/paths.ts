import type { IncomingMessage } from "node:http";

import { optionError } from "./options";

/** A path (`/webhook`), a path and everything below it (`/static/*`), or a regular expression. */
export type PathPattern = string | RegExp;

/** The path of a request as the client sent it, without the query. */
export function pathOf(request: IncomingMessage & { originalUrl?: string }): string {
  return (request.originalUrl ?? request.url ?? "/").replace(/[?#].*$/s, "");
}

/** A function that says whether a path is one of the patterns. Paths are compared as sent: nothing is decoded. */
export function matcher(name: string, patterns: readonly PathPattern[] = []): (path: string) => boolean {
  if (!Array.isArray(patterns)) {
    throw optionError(name, patterns, 'a list of paths, such as ["/webhook", "/static/*"]');
  }
  const tests = patterns.map((pattern: unknown) => {
    if (pattern instanceof RegExp) {
      return (path: string) => new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, "")).test(path);
    }
    if (typeof pattern !== "string" || !pattern.startsWith("/")) {
      throw optionError(name, pattern, 'a path that begins with "/", or a regular expression');
    }
    if (pattern.endsWith("/*")) {
      return (path: string) => path.startsWith(pattern.slice(0, -1)) && !/(^|\/)(\.|%2e){2}(\/|$)/i.test(path);
    }
    return (path: string) => path === pattern;
  });
  return (path) => tests.some((test) => test(path));
}

/**
 * The path if it leads to a page of this site, otherwise the fallback. For the `next` of a login page: a browser must
 * not be sent to another site with it.
 */
export function safeNext(path: unknown, fallback = "/"): string {
  // Browsers read "\" as "/" and leave out tabs and line breaks, so "/\evil.example" would name a host.
  if (typeof path !== "string" || !path.startsWith("/") || /^\/\/|[\\\u0000-\u0020\u007f]/.test(path)) {
    return fallback;
  }
  const here = "http://sessiond.invalid";
  const url = URL.canParse(path, here) ? new URL(path, here) : undefined;
  // After "/.//evil.example" is resolved, the path begins with "//", which would name a host too.
  return url?.origin === here && !url.pathname.startsWith("//") ? url.pathname + url.search + url.hash : fallback;
}
