"""What is ordinary: the one place that says how far ordinary traffic goes, and why no further.

The authority's tolerances are promises about exactly these bounds. What lies beyond them may raise an alarm.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DAY", "HOUR", "MINUTE", "SECOND", "Bounds"]

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Bounds:
    """Times in milliseconds, chances from 0 to 1.

    in_flight       No request or response is longer on its way, else its connection was given up. While the answer with
                    a new token is on its way, a request with the old one may set out: twice as long is below the
                    presets' `roll_tolerance` (20 s) and `renewal_overlap` (60 s), which exist for that.
    mobile_stall    How often a request or a response waits for its network up to that long: a radio that wakes up, a
    wifi_stall      packet that is sent again. Others of the same browser overtake it.
    mobile_loss     How often a response is lost on a mobile network, or a wireless one: a tunnel, a lift, a tab that
    wifi_loss       is closed. The client then has the cookie that it had before.
    give_up         How long a user with a lost response waits before sending the form again or going elsewhere: mobile
                    connections take tens of seconds to die. Where it is the answer to a login, the browser still has
                    the token from before; who goes elsewhere comes back with it as late as the session may be idle.
                    The simulated policy's `lost_answer_tolerance` is that long (three days, for sessions can be
                    remembered; the presets have a minute).
    repeat_call     How often the application loses the authority's answer and repeats its call, with its `request_id`.
    flaps           How often a phone that leaves or reaches a wireless network changes to and fro first, by the number
                    of times it goes back. A doorway or a lift does that within a minute.
    omitted         How often one of the application's proxies passes on no address, no user agent, or neither. Never a
                    device or certificate that a session was bound to: leaving those out is a mismatch by definition.
    update          How often the browser is updated before a user's next deed: its version changes, not its family.
    passing_back    How often a user comes back to a sensitive page after having logged in anew.

    Never: a border crossed (`country_change` tells of it by design), a desktop page asked for on a phone (another user
    agent by the user's own wish), a profile restored from a backup (its old tokens are replays), a cookie jar that a
    crash threw back to before a renewal, a renewed token whose answer is overtaken by the answer to a roll: it would be
    the last in the jar, and a replay once the tolerance is over (seen about once in 40,000 requests).
    """

    in_flight: int = 8 * SECOND
    mobile_stall: float = 0.06
    wifi_stall: float = 0.015
    mobile_loss: float = 0.02
    wifi_loss: float = 0.003
    give_up: tuple[int, int] = (3 * SECOND, 45 * SECOND)
    repeat_call: float = 0.003
    flaps: tuple[float, ...] = (0.7, 0.25, 0.05)
    omitted: float = 0.02
    update: float = 0.006
    passing_back: float = 0.3
