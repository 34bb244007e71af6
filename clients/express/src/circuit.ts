/** Milliseconds between two probes. A probe costs one call that the authority refuses or does not answer. */
const PROBE_PAUSE = 100;

/**
 * Open from the first call that does not reach the authority until one does. While it is open, calls fail at once,
 * except for one at a time: the probe. Times are milliseconds of a monotonic clock.
 */
export class Circuit {
  #cause = "";
  #probe: object | undefined;
  #nextProbe = 0;
  #lastReached = -Infinity;

  /** Why the call must not be made now; empty: make it, perhaps as the probe. */
  admit(call: object, now: number): string {
    if (this.#cause === "") {
      return "";
    }
    if (this.#probe !== undefined || now < this.#nextProbe) {
      return this.#cause;
    }
    this.#probe = call;
    return "";
  }

  /** The authority answered a call. */
  reached(now: number): void {
    this.#lastReached = now;
    this.#cause = "";
    this.#probe = undefined;
  }

  /** A call could not reach the authority. */
  refused(call: object, cause: string, now: number): void {
    this.#cause = cause;
    this.#nextProbe = now + PROBE_PAUSE;
    this.leave(call);
  }

  /**
   * A call got no answer in time. That is an outage only if no other call has got one since it began; otherwise the
   * call itself is slow.
   */
  timedOut(call: object, cause: string, began: number, now: number): void {
    if (this.#lastReached < began) {
      this.refused(call, cause, now);
    }
    this.leave(call);
  }

  /** The call has ended. If it was the probe, another call may be the next one. */
  leave(call: object): void {
    if (this.#probe === call) {
      this.#probe = undefined;
    }
  }
}
