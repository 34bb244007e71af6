/** The session cookie of a request: its value, empty if there is none; or more than one of the same name. */
export type PresentedCookie = { token: string; ambiguous: false } | { ambiguous: true };

/**
 * Read the session cookie. The first of `names` that is present counts. Two cookies of one name are ambiguous: another
 * host of the domain may have planted one of them, and nothing says which (RFC 6265, section 8.6).
 */
export function readSessionCookie(header: string | undefined, names: readonly string[]): PresentedCookie {
  for (const name of names) {
    const values = valuesOf(header ?? "", name);
    if (values.length > 1) {
      return { ambiguous: true };
    }
    const [token] = values;
    if (token !== undefined) {
      return { token, ambiguous: false };
    }
  }
  return { token: "", ambiguous: false };
}

function valuesOf(header: string, name: string): string[] {
  const values: string[] = [];
  // A cookie's value has no comma. Some proxies join two Cookie headers with one.
  for (const pair of header.split(/[;,]/)) {
    const separator = pair.indexOf("=");
    if (separator > 0 && pair.slice(0, separator).trim() === name) {
      values.push(
        pair
          .slice(separator + 1)
          .trim()
          .replace(/^"(.*)"$/, "$1"),
      );
    }
  }
  return values;
}
