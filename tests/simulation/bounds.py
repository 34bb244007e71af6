"""The limits of ordinary traffic, and the reason for each limit.

The authority's tolerances are promises about exactly these limits. Traffic beyond them may raise an alarm.
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

    in_flight       The longest time that a request or response takes; after that its connection counts as broken. While
                    the response with a new token is on its way, a request with the old one may be sent. So an old token
                    can arrive after twice this time, which is below the presets' `roll_tolerance` (20 s) and
                    `renewal_overlap` (60 s). They exist for that.
    mobile_stall    How often a request or a response waits for its network, for up to `in_flight`, while a radio wakes
    wifi_stall      up or a packet is sent again. Others of the same browser overtake it.
    mobile_loss     How often a response is lost on a mobile or wireless network, because of a tunnel, a lift or a tab
    wifi_loss       that is closed. The client then keeps its previous cookie.
    give_up         How long a user with a lost response waits before sending the form again or going elsewhere: mobile
                    connections take tens of seconds to fail. If it is the response to a login, the browser still has
                    the previous token; a user who goes elsewhere presents it at the next visit, hours later.
    repeat_call     How often the application loses the authority's response and retries its call with its `request_id`.
    flaps           How often a phone that leaves or reaches a wireless network changes back and forth first, by the
                    number of times it goes back. That happens within a minute, in a doorway or a lift.
    omitted         How often one of the application's proxies passes on no address, no user agent, or neither. It never
                    omits a device or certificate that a session is bound to: that is a mismatch by definition.
    update          How often the browser is updated before a user's next action: its version changes, not its family.
    passing_back    How often a user comes back to a sensitive page after logging in again.

    The rest is the subject of the table "Normal use" in docs/reference/configuration.md, which `expected.py` contains:

    upload          How often a visit has an upload through a proxy that buffers it. It is sent with the cookie of that
    upload_takes    moment, and reaches the application so much later, from the address that it was sent from. Meanwhile
                    the user continues, and the token may be renewed or rolled. A change of networks ends the upload.
    hybrid          The share of phones with an app whose native part and web view share a jar: each request comes from
                    one or the other. The application lists both user agents in `related_agents`.
    extension       The share of those apps with an extension (such as a widget) that copies the token at the end of
    extension_copies  a visit and uses that copy for days, sometimes copying it again. Such an app reports its device.
    restored        How often a phone is restored before a visit from its backup of an earlier visit, jar included. It
                    is restored where it was last used.
    unflushed       How often a browser is killed within half a minute after a login, a step-up or another form that
    written_after   rolls the token. It writes its jar so long after a change, and restarts with what it last wrote.
    late            How often a response is delayed so long that others overtake it: the response to a renewal arrives
    late_by         after that to a roll, a logout's after a login's, or a page's about a session that has ended since.
                    The jar holds the last one to arrive. With `in_flight` this stays below `roll_tolerance`.
    late_login      How often the response to a login or a step-up is delayed for about as long as `roll_tolerance` or
    late_login_by   longer, while another tab sends a request with the old token.
    double_click    How often a login or a logout is sent twice, a moment apart.
    two_networks    How often a device uses two networks at once throughout a visit, and each request one of them.
    desktop_site    How often a phone's user asks for the desktop site at some moment of a visit, until its end; other
                    tabs do not change.
    in_app          How often a phone's user opens a page in another app's browser during a visit. Half of those share
                    the system browser's jar; the others have one of their own.

    Two things never happen: a border is crossed (`country_change` is an alarm by design), and the response to a roll
    without a login, such as a change of password, arrives later than `roll_tolerance` while another tab sends the old
    token.
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
