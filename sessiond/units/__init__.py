"""The units of work: what each change decides, in one go, from the state it is committed against.

Every unit that takes a token judges it here, inside the transaction: what was true when the call came in does not
count, so no call can act on a session that another has just ended.
"""

from sessiond.units.common import Call, NamedSession, Outcome, Suspicion
from sessiond.units.ending import Revocation, Revoke, RevokeMany
from sessiond.units.once import Once, Recall, Repeated
from sessiond.units.opening import Authenticate, Choice, Create, Refresh, Roll
from sessiond.units.upkeep import Expire, ForgetAnswers, Prune, PruneLog, RecordOther, SaveActivity, Total
from sessiond.units.using import Report, Settle, UpdateData

__all__ = [
    "Authenticate",
    "Call",
    "Choice",
    "Create",
    "Expire",
    "ForgetAnswers",
    "NamedSession",
    "Once",
    "Outcome",
    "Prune",
    "PruneLog",
    "Recall",
    "RecordOther",
    "Refresh",
    "Repeated",
    "Report",
    "Revocation",
    "Revoke",
    "RevokeMany",
    "Roll",
    "SaveActivity",
    "Settle",
    "Suspicion",
    "Total",
    "UpdateData",
]
