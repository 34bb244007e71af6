import { readFileSync } from "node:fs";
import { isIP } from "node:net";

import type { ChannelCredentials } from "@grpc/grpc-js";

import { optionError } from "./options";
import { Token } from "./token";

/** Which key each call sends, for an authority that has callers. */
export interface KeyOptions {
  /**
   * The key of this caller, as `sessionctl callers add` shows it. It is sent over TLS, a Unix socket or loopback only.
   */
  key?: string | Token;
  /**
   * A file whose only line is the key. It is read once. Default: the file that the environment variable
   * `SESSIOND_KEY_FILE` names; if that is not set either, no key is sent.
   */
  keyFile?: string;
}

export const KEY_OPTIONS = ["key", "keyFile"] as const;

const VARIABLE = "SESSIOND_KEY_FILE";
const LONGEST = 4_096;

/** A key, and what named it: an option or a variable, with the path of the file. */
export interface CallerKey {
  key: Token;
  source: string;
}

/** The key that the options or the environment name; undefined: none. No error shows anything of a key. */
export function callerKey(options: KeyOptions): CallerKey | undefined {
  const { key, keyFile } = options;
  if (key !== undefined && keyFile !== undefined) {
    throw new TypeError("options key and keyFile are both set; expected one of them");
  }
  if (key !== undefined) {
    const text = key instanceof Token ? key.reveal() : key;
    if (typeof text !== "string" || !/^[\x21-\x7e]+$/.test(text)) {
      throw new TypeError("option key is wrong; expected a caller key, as `sessionctl callers add` shows it");
    }
    return { key: new Token(text), source: "the option key" };
  }
  if (keyFile !== undefined) {
    if (typeof keyFile !== "string" || keyFile === "") {
      throw optionError("keyFile", keyFile, "the path of a file with a caller key");
    }
    return { key: keyIn(keyFile, "option keyFile"), source: `the file ${keyFile} (option keyFile)` };
  }
  const path = process.env[VARIABLE] ?? "";
  return path === "" ? undefined : { key: keyIn(path, VARIABLE), source: `the file ${path} (${VARIABLE})` };
}

function keyIn(path: string, source: string): Token {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    const { code = "no such path" } = error as NodeJS.ErrnoException;
    throw new TypeError(`${source}: ${path} cannot be read (${code}); name a file that this user can read`);
  }
  const text = bytes.toString("latin1").trim();
  if (bytes.length > LONGEST || !/^sessiond_[\x21-\x7e]+$/.test(text)) {
    throw new TypeError(
      `${source}: ${path} does not hold a key; write one line, as \`sessionctl callers add\` shows it`,
    );
  }
  return new Token(text);
}

/** Refuse to send a key where others could read it. */
export function checkKeyIsProtected(found: CallerKey, target: string, credentials: ChannelCredentials): void {
  // gRPC has no other way to ask. Credentials of another copy of it have the method too.
  if (!credentials._isSecure() && !isLocal(target)) {
    throw new TypeError(
      `option target is ${JSON.stringify(target)}, and ${found.source} has a caller key, which would be sent to it ` +
        "unencrypted; set the option credentials for TLS, or connect to a Unix socket or a loopback address",
    );
  }
}

/** Whether only this machine can receive what is sent to a target. A form that is not known here is not local. */
function isLocal(target: string): boolean {
  if (target.startsWith("unix:")) {
    return true;
  }
  const addresses = target.replace(/^(?:dns:(?:\/\/\/)?|ipv4:|ipv6:)/, "").split(",");
  return addresses.every((address) => {
    const [, bracketed, plain] = /^(?:\[([^\]]*)\]|([^:/]*))(?::\d+)?$/.exec(address) ?? [];
    const host = bracketed ?? plain ?? address;
    return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
  });
}
