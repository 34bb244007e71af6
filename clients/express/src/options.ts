/** An option is wrong: the message names it, what it is, and what is expected. */
export function optionError(name: string, value: unknown, expected: string): TypeError {
  const shown = typeof value === "string" ? JSON.stringify(value) : Array.isArray(value) ? "an array" : typeof value;
  return new TypeError(`option ${name} is ${value === null ? "null" : shown}; expected ${expected}`);
}

/** Refuse options that do not exist, so that a misspelt one is not silently without effect. */
export function checkNames(options: object, names: readonly string[]): void {
  for (const name of Object.keys(options)) {
    if (!names.includes(name)) {
      throw new TypeError(`unknown option ${name}; the options are ${names.join(", ")}`);
    }
  }
}
