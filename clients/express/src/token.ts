import { inspect } from "node:util";

/** What every form of a token shows instead of the secret. */
const HIDDEN = "<Token>";

/** A secret text. Only `reveal` returns it: logs, inspection, templates and JSON show `<Token>`. */
export class Token {
  readonly #secret: string;

  constructor(secret: string) {
    this.#secret = secret;
  }

  /** The secret, for the one place that it is meant for. */
  reveal(): string {
    return this.#secret;
  }

  toString(): string {
    return HIDDEN;
  }

  toJSON(): string {
    return HIDDEN;
  }

  [inspect.custom](): string {
    return HIDDEN;
  }
}
