"""The units of work: what each change decides, in one go, from the state it is committed against.

Every unit that takes a token judges it here, inside the transaction: what was true when the call came in does not
count, so no call can act on a session that another has just ended.
"""

from sessiond.changes.idempotency import Once, Recall, Repeated
from sessiond.changes.judging import Call, NamedSession, Outcome, Suspicion
from sessiond.changes.login import Authenticate, Choice, Create, Refresh, Roll
from sessiond.changes.maintenance import Expire, ForgetAnswers, Prune, PruneLog, RecordOther, SaveActivity, Total
from sessiond.changes.revocation import Revocation, Revoke, RevokeMany
from sessiond.changes.use import Report, Settle, UpdateData

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
