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
                    the token from before; a user who goes elsewhere comes back with it at the next visit, hours later.
    repeat_call     How often the application loses the authority's answer and repeats its call, with its `request_id`.
    flaps           How often a phone that leaves or reaches a wireless network changes to and fro first, by the number
                    of times it goes back. A doorway or a lift does that within a minute.
    omitted         How often one of the application's proxies passes on no address, no user agent, or neither. Never a
                    device or certificate that a session was bound to: leaving those out is a mismatch by definition.
    update          How often the browser is updated before a user's next deed: its version changes, not its family.
    passing_back    How often a user comes back to a sensitive page after having logged in anew.

    What the table "Normal use" in docs/reference/configuration.md covers (`expected.py` is that table):

    upload          How often a visit has an upload through a proxy that buffers it. It sets out with the cookie of that
    upload_takes    moment and reaches the application so much later, from the address it set out from. Meanwhile the
                    user goes on, and the token may be renewed or rolled. It is lost if the device changes networks.
    hybrid          The share of phones with an app whose native part and web view share a jar: each request comes from
                    one or the other. The application names both user agents in `related_agents`.
    extension       The share of those apps with an extension (a widget, say) that copies the token at some visit's
    extension_copies  end and uses that copy for days, now and then copying it again. Such an app names its device.
    restored        How often a phone is restored from its backup of an earlier visit before a visit: its jar is the one
                    from then. It is restored where it was last used.
    unflushed       How often a browser is killed within half a minute after a login, a step-up or another form that
    written_after   rolls the token. It writes its jar so long after a change, and starts again with what it last wrote.
    late            How often a response is held up so long that others overtake it: the answer to a renewal that comes
    late_by         after that to a roll, a logout's that comes after a login's, a page's about a session that has ended
                    since. The last to come is what the jar holds. With `in_flight` this stays below `roll_tolerance`.
    late_login      How often the answer to a login or a step-up is held up for about as long as `roll_tolerance`, or
    late_login_by   longer, while another tab sends a request with the old token.
    double_click    How often a login or a logout is sent twice, a moment apart.
    two_networks    How often a device's requests leave by two networks at once throughout a visit, each by one of them.
    desktop_site    How often a phone's user asks for the desktop site at some moment of a visit, until its end; other
                    tabs stay as they were.
    in_app          How often a phone's user opens a page in another app's browser during a visit. Half of those share
                    the system browser's jar; the others have one of their own.

    Never: a border crossed (`country_change` is an alarm by design).
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
    upload: float = 0.2
    upload_takes: tuple[int, int] = (20 * SECOND, 5 * MINUTE)
    hybrid: float = 0.35
    extension: float = 0.6
    extension_copies: float = 0.15
    restored: float = 0.06
    unflushed: float = 0.04
    written_after: int = 30 * SECOND
    late: float = 0.03
    late_by: tuple[int, int] = (2 * SECOND, 11 * SECOND)
    late_login: float = 0.03
    late_login_by: tuple[int, int] = (15 * SECOND, 40 * SECOND)
    double_click: float = 0.08
    two_networks: float = 0.03
    desktop_site: float = 0.04
    in_app: float = 0.06
