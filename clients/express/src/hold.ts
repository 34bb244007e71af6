import type { OutgoingHttpHeader, OutgoingHttpHeaders, ServerResponse } from "node:http";

type Operation = () => unknown;
type HeaderArgument = OutgoingHttpHeaders | OutgoingHttpHeader[];

/** What happens before the headers of a response are sent. */
export interface BeforeHeaders {
  /** Work that must be done first; undefined if there is none. A rejection replaces the response. */
  prepare: () => Promise<void> | undefined;
  /** Add headers. Called once, directly before they are sent. */
  finish: () => void;
  /** Write another response in place of the one that was begun. Headers that describe its body are removed. */
  replace: (error: unknown) => void;
}

/**
 * How many bytes of a body may wait before its writer is told to stop. It must be more than the buffers of a response
 * and of a compression around it: these then say themselves when to go on, on whichever stream the writer listens.
 */
const ROOM = 262_144;
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
  const { writeHead, write, end, flushHeaders } = response;
  let state: "open" | "held" | "released" = "open";
  let waiting: Operation[] = [];
  let room = ROOM;
  let restore: Operation = () => undefined;

  /** Whether the headers may be sent now. */
  function begin(): boolean {
    if (state === "open") {
      let work: Promise<void> | undefined;
      try {
        work = before.prepare();
      } catch (error) {
        work = Promise.reject(error as Error);
      }
      if (work === undefined) {
        state = "released";
        before.finish();
      } else {
        state = "held";
        restore = seemSent(response);
        work.then(repeat, discard).catch((error: Error) => response.destroy(error));
      }
    }
    return state === "released";
  }

  function repeat(): void {
    restore();
    state = "released";
    before.finish();
    for (const operation of waiting) {
      operation();
    }
    if (room <= 0 && !response.writableNeedDrain) {
      response.emit("drain"); // a stream that was told to wait goes on
    }
  }

  function discard(error: unknown): void {
    restore();
    state = "released";
    waiting = [];
    for (const name of BODY_HEADERS) {
      response.removeHeader(name);
    }
    before.replace(error);
  }

  // The functions stay in place after the release, because later middleware may have wrapped them.

  response.writeHead = function (...args: unknown[]) {
    if (state === "held") {
      throw sentError();
    }
    if (state === "open") {
      applyHead(response, args);
      if (!begin()) {
        waiting.push(() => writeHead.call(response, response.statusCode));
        return response;
      }
      args = [response.statusCode];
    }
    return Reflect.apply(writeHead, response, args);
  } as typeof writeHead;

  response.write = function (...args: unknown[]) {
    if (begin()) {
      return Reflect.apply(write, response, args);
    }
    waiting.push(() => Reflect.apply(write, response, args));
    room -= sizeOf(args[0]);
    return room > 0;
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

function sizeOf(chunk: unknown): number {
  return typeof chunk === "string" || chunk instanceof Uint8Array ? chunk.length : 0;
}

function sentError(): Error {
  return Object.assign(new Error("the headers have already been sent"), { code: "ERR_HTTP_HEADERS_SENT" });
}

/**
 * Let a response look as if its headers had been sent, so that code which checks that behaves as usual: an error
 * handler must not change the status of a response that has ended. Returns what undoes it.
 */
function seemSent(response: ServerResponse): Operation {
  const { statusCode, statusMessage } = response;
  const refuse = {
    value: (): never => {
      throw sentError();
    },
  };
  const disguise: PropertyDescriptorMap = {
    headersSent: { get: () => true },
    setHeader: refuse,
    appendHeader: refuse,
    removeHeader: refuse,
  };
  const names = Object.keys(disguise);
  const own = names.map((name) => Object.getOwnPropertyDescriptor(response, name));
  for (const name of names) {
    Object.defineProperty(response, name, { ...disguise[name], configurable: true });
  }
  return () => {
    names.forEach((name, index) => {
      Reflect.deleteProperty(response, name);
      const descriptor = own[index];
      if (descriptor !== undefined) {
        Object.defineProperty(response, name, descriptor);
      }
    });
    response.statusCode = statusCode;
    response.statusMessage = statusMessage;
  };
}

/** Apply the arguments of `writeHead` to the response, so that `finish` can add to them. */
function applyHead(response: ServerResponse, [status, ...more]: unknown[]): void {
  response.statusCode = status as number;
  if (typeof more[0] === "string") {
    response.statusMessage = more[0];
  }
  applyHeaders(response, (typeof more[0] === "object" ? more[0] : more[1]) as HeaderArgument | undefined);
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
