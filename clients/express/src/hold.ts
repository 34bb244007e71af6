import type { OutgoingHttpHeader, OutgoingHttpHeaders, ServerResponse } from "node:http";

type Operation = () => unknown;
type HeaderArgument = OutgoingHttpHeaders | OutgoingHttpHeader[];

/** What happens before the headers of a response are sent. */
export interface BeforeHeaders {
  /** Work that must be done first; undefined if there is none. A rejection replaces the response. */
  prepare: () => Promise<void> | undefined;
  /** Add headers. Called once, directly before they are sent. */
  finish: () => void;
  /** Write another response in place of the one that was begun. Its headers are still open, without those for a body. */
  replace: (error: unknown) => void;
}

const BODY_HEADERS = [
  "accept-ranges",
  "cache-control",
  "content-disposition",
  "content-encoding",
  "content-language",
  "content-length",
  "content-range",
  "content-type",
  "etag",
  "last-modified",
  "location",
  "set-cookie",
  "transfer-encoding",
];

/**
 * Delay the headers of a response until `prepare` has ended. The first call that would send headers (`writeHead`,
 * `write`, `end`, `flushHeaders`) starts it. If there is nothing to prepare, the call goes through at once. Otherwise
 * it and later ones are repeated in their order afterwards; until then the response looks as if it had been sent.
 */
export function holdHeaders(response: ServerResponse, before: BeforeHeaders): void {
  const { writeHead, write, end, flushHeaders, setHeader, appendHeader, removeHeader } = response;
  const own = { writeHead, write, end, flushHeaders };
  let state: "open" | "held" | "released" = "open";
  let waiting: Operation[] = [];
  let isFull = false;
  let statusCode = 200;
  let statusMessage: string | undefined;

  /** Whether the headers may be sent now. */
  function begin(): boolean {
    if (state === "open") {
      ({ statusCode, statusMessage } = response);
      let work: Promise<void> | undefined;
      try {
        work = before.prepare();
      } catch (error) {
        work = Promise.reject(error as Error);
      }
      if (work === undefined) {
        release();
      } else {
        state = "held";
        seem(true);
        work.then(repeat, discard);
      }
    }
    return state === "released";
  }

  function release(): void {
    state = "released";
    Object.assign(response, own);
    before.finish();
  }

  function repeat(): void {
    seem(false);
    response.statusCode = statusCode;
    response.statusMessage = statusMessage as string;
    release();
    for (const operation of waiting) {
      operation();
    }
    if (isFull && !response.writableNeedDrain) {
      response.emit("drain"); // a stream that was told to wait goes on
    }
  }

  function discard(error: unknown): void {
    seem(false);
    waiting = [];
    state = "released";
    Object.assign(response, own);
    for (const name of BODY_HEADERS) {
      response.removeHeader(name);
    }
    before.replace(error);
  }

  /** Let the response look as if its headers had been sent, or as it is. */
  function seem(sent: boolean): void {
    if (!sent) {
      delete (response as { headersSent?: boolean }).headersSent;
      Object.assign(response, { setHeader, appendHeader, removeHeader });
      return;
    }
    Object.defineProperty(response, "headersSent", { configurable: true, get: () => true });
    const refuse = (): never => {
      throw Object.assign(new Error("the headers have already been sent"), { code: "ERR_HTTP_HEADERS_SENT" });
    };
    Object.assign(response, { setHeader: refuse, appendHeader: refuse, removeHeader: refuse });
  }

  response.writeHead = function (this: ServerResponse, status: number, ...more: unknown[]) {
    if (state === "open") {
      response.statusCode = status;
      const text = typeof more[0] === "string" ? (more.shift() as string) : undefined;
      if (text !== undefined) {
        response.statusMessage = text;
      }
      applyHeaders(response, (more[0] ?? more[1]) as HeaderArgument | undefined);
    }
    if (begin()) {
      writeHead.call(response, response.statusCode);
    } else {
      waiting.push(() => writeHead.call(response, statusCode));
    }
    return response;
  } as typeof writeHead;

  response.write = function (...args: unknown[]) {
    if (begin()) {
      return Reflect.apply(write, response, args);
    }
    isFull = true;
    waiting.push(() => Reflect.apply(write, response, args));
    return false;
  } as typeof write;

  response.end = function (...args: unknown[]) {
    if (begin()) {
      return Reflect.apply(end, response, args);
    }
    waiting.push(() => Reflect.apply(end, response, args));
    return response;
  } as typeof end;

  response.flushHeaders = function () {
    if (begin()) {
      flushHeaders.call(response);
    } else {
      waiting.push(() => flushHeaders.call(response));
    }
  };
}

/** Set the headers that were given to `writeHead`, so that `finish` can add to them. */
function applyHeaders(response: ServerResponse, headers: HeaderArgument | undefined): void {
  if (Array.isArray(headers)) {
    const names = headers.filter((_, index) => index % 2 === 0).map(String);
    for (const name of new Set(names.map((name) => name.toLowerCase()))) {
      response.removeHeader(name);
    }
    names.forEach((name, index) => response.appendHeader(name, headers[2 * index + 1] as string));
    return;
  }
  for (const [name, value] of Object.entries(headers ?? {})) {
    if (value !== undefined) {
      response.setHeader(name, value);
    }
  }
}

/** Add `Cookie` or another name to the header Vary. */
export function vary(response: ServerResponse, name: string): void {
  const present = String(response.getHeader("Vary") ?? "");
  const names = present.split(",").map((item) => item.trim().toLowerCase());
  if (!names.includes("*") && !names.includes(name.toLowerCase())) {
    response.setHeader("Vary", present === "" ? name : `${present}, ${name}`);
  }
}
