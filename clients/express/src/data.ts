import { SessiondError } from "./errors";

/** What differs between the session's data and what the authority has. */
export interface DataChange {
  set: Record<string, Buffer>;
  delete: string[];
}

/**
 * The session data of one request: JSON for each top-level key. A key whose value is not JSON, because another program
 * wrote it, is left out and left alone.
 */
export class RequestData {
  /** What `req.session` is. It has no prototype, so that no key has a meaning of its own. */
  readonly values: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
  /** The JSON of each key as the authority has it, in our own notation: another client's may differ in spaces. */
  readonly #kept = new Map<string, string>();

  constructor(data: Record<string, Uint8Array> = {}) {
    for (const [key, bytes] of Object.entries(data)) {
      const value = parsed(bytes);
      if (value !== undefined) {
        this.values[key] = value;
        this.#kept.set(key, JSON.stringify(value));
      }
    }
  }

  /** The changes since the data was read or saved; undefined if there are none. */
  changes(): DataChange | undefined {
    const change: DataChange = { set: Object.create(null) as Record<string, Buffer>, delete: [] };
    const now = this.#texts();
    for (const [key, text] of now) {
      if (this.#kept.get(key) !== text) {
        change.set[key] = Buffer.from(text);
      }
    }
    change.delete = [...this.#kept.keys()].filter((key) => !now.has(key));
    return Object.keys(change.set).length > 0 || change.delete.length > 0 ? change : undefined;
  }

  /** Note that the authority now has these changes. */
  saved(change: DataChange): void {
    for (const [key, bytes] of Object.entries(change.set)) {
      this.#kept.set(key, bytes.toString());
    }
    for (const key of change.delete) {
      this.#kept.delete(key);
    }
  }

  /** Every value, as changes of a session that has none. */
  everything(): Record<string, Buffer> {
    const all = Object.create(null) as Record<string, Buffer>;
    for (const [key, text] of this.#texts()) {
      all[key] = Buffer.from(text);
    }
    return all;
  }

  /** Forget what the authority had, but keep what this request has changed: it belongs to the next session. */
  detach(): void {
    const texts = this.#texts();
    for (const [key, text] of this.#kept) {
      if (texts.get(key) === text) {
        delete this.values[key];
      }
    }
    this.#kept.clear();
  }

  /** Forget everything. The object stays the same, because a handler may hold it. */
  clear(): void {
    for (const key of Object.keys(this.values)) {
      delete this.values[key];
    }
    this.#kept.clear();
  }

  /** Replace all values. */
  replace(values: object): void {
    const copy = { ...values };
    for (const key of Object.keys(this.values)) {
      delete this.values[key];
    }
    Object.assign(this.values, copy);
  }

  #texts(): Map<string, string> {
    const texts = new Map<string, string>();
    for (const [key, value] of Object.entries(this.values)) {
      let text: string | undefined;
      try {
        text = JSON.stringify(value);
      } catch {
        throw new SessiondError("internal", `req.session.${key} cannot be written as JSON; store plain values in it`);
      }
      if (text !== undefined) {
        texts.set(key, text); // undefined and functions have no JSON: such a key counts as deleted
      }
    }
    return texts;
  }
}

function parsed(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}
