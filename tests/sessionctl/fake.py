"""A client with fixed answers, for the screens of `sessionctl`: fixed ids and times, no server, no waiting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from sessiond.config import load_config
from sessiond.rpc.encode import policy_message
from sessiond_client import (
    Application,
    Authentication,
    Authority,
    CallerCredential,
    CallerInfo,
    CallerKey,
    CallerRevoked,
    CallerUpdated,
    Cause,
    CauseKind,
    Checkpoint,
    ClientContext,
    ConcurrencyLimit,
    ConcurrencyLimitReached,
    CookieDirectives,
    Created,
    Data,
    DataUpdated,
    Device,
    DeviceType,
    Ending,
    Event,
    EventType,
    Found,
    Grant,
    KeyRing,
    LockCleared,
    NextStep,
    Reaction,
    RequirementKind,
    Revoked,
    RevokedAll,
    Role,
    SealingKey,
    SealingKeyChanged,
    SealingKeyState,
    Session,
    SessionState,
    Signal,
    SignalReported,
    SignalType,
    SourceLock,
    Token,
    UnmetRequirement,
    Validation,
    Verdict,
)
from sessiond_client.convert import application
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["ADA", "NOW", "FakeClient"]

NOW = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
CONFIG = """
[applications.shop]
preset = "owasp-low"
idle_timeout = "20m"
related_agents = [["Shop App on Android", "Chrome on Android"], ["Shop App on iOS", "Safari on iOS"]]
cookie = { anonymous_name = "visitor" }

[applications.desk]
preset = "nist-aal2"
max_sessions = 3
"""
FIREFOX = Device(description="Firefox 140 on Linux", type=DeviceType.DESKTOP)
PHONE = Device(description="Safari 18 on iOS", type=DeviceType.PHONE)
TOKEN = Token("T" * 70)


def ago(**length: float) -> datetime:
    return NOW - timedelta(**length)


def ahead(**length: float) -> datetime:
    return NOW + timedelta(**length)


ADA = Session(
    session_id="019bc080-7e00-7c1d-8a3e-5f0d2b7c9e11",
    application="shop",
    subject="ada",
    state=SessionState.ACTIVE,
    generation=2,
    create_time=ago(hours=3, minutes=12),
    last_active_time=ago(minutes=3, seconds=20),
    idle_expire_time=ahead(minutes=16, seconds=40),
    absolute_expire_time=ahead(hours=4, minutes=48),
    login_expire_time=None,
    persistent=False,
    authentication=Authentication(authenticate_time=ago(hours=3, minutes=12), level=2, methods=("pwd", "otp")),
    elevation_expire_time=None,
    client=ClientContext(
        ip_address="192.0.2.10",
        user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    ),
    last_client=ClientContext(
        ip_address="192.0.2.77",
        user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    ),
    device=FIREFOX,
    last_device=FIREFOX,
    labels={"region": "eu", "tenant": "acme"},
    lifetimes=None,
    data_version=4,
    ending=None,
)
LONG = replace(
    ADA,
    session_id="019bc07a-1150-7f02-9b6d-0c44a1e8d3f2",
    subject="a.very.long.subject.identifier@customers.example.com",
    create_time=ago(days=2, hours=1),
    last_active_time=ago(hours=5),
    idle_expire_time=ahead(days=6),
    absolute_expire_time=ahead(days=27),
    persistent=True,
    client=ClientContext(ip_address="2001:db8:85a3:8d3:1319:8a2e:370:7348"),
    last_client=None,
    device=PHONE,
    last_device=None,
    labels={},
)
GUEST = replace(
    ADA,
    session_id="019bc079-9cc8-7a5b-8e21-77d3f05b6a90",
    subject="",
    generation=0,
    create_time=ago(seconds=30),
    last_active_time=ago(seconds=30),
    login_expire_time=ahead(minutes=9, seconds=30),
    authentication=None,
    client=ClientContext(ip_address="198.51.100.4"),
    last_client=None,
    device=None,
    last_device=None,
    labels={},
    data_version=0,
)
WIDE_LETTERS = replace(
    ADA,
    session_id="019bc078-1f40-7b6c-9d02-3e8a5c17f4b8",
    subject="東京都千代田区丸の内",
    elevation_expire_time=ahead(minutes=4),
    labels={},
)
ENDED = replace(
    ADA,
    session_id="019bc077-0a10-7d3e-8c55-91b2e6f4a073",
    subject="bob",
    state=SessionState.REVOKED,
    idle_expire_time=ahead(minutes=5),
    ending=Ending(
        end_time=ago(minutes=1, seconds=5),
        cause=Cause(kind=CauseKind.REQUEST, actor="caller", reason="stolen device"),
    ),
)
EXPIRED = replace(
    ENDED,
    session_id="019bc076-5e30-7e4f-8b66-a0c1d7e5b184",
    subject="eve",
    state=SessionState.EXPIRED,
    ending=Ending(end_time=ago(hours=2), cause=Cause(kind=CauseKind.IDLE_TIMEOUT, actor="authority")),
)
SESSIONS = {
    SessionState.ACTIVE: (ADA, LONG, GUEST, WIDE_LETTERS),
    SessionState.REVOKED: (ENDED,),
    SessionState.EXPIRED: (EXPIRED,),
}
CREATED = Event(
    revision=41,
    type=EventType.SESSION_CREATED,
    event_time=ago(days=1, hours=3),
    application="shop",
    subject="ada",
    session_id=ADA.session_id,
    cause=Cause(kind=CauseKind.REQUEST, actor="caller"),
    client=ClientContext(ip_address="192.0.2.10"),
    generation=0,
    authentication=None,
    signals=(),
    reaction=Reaction.UNSPECIFIED,
    source="",
    labels={"region": "eu", "tenant": "acme"},
    cursor="AQAAAAAAAAAp",
)
EVENTS = (
    CREATED,
    replace(CREATED, revision=42, type=EventType.SESSION_AUTHENTICATED, event_time=ago(hours=3)),
    replace(
        CREATED,
        revision=43,
        type=EventType.HIJACK_SUSPECTED,
        event_time=ago(minutes=12),
        cause=Cause(kind=CauseKind.SIGNAL, actor="authority"),
        signals=(
            Signal(type=SignalType.IP_CHANGE, expected="192.0.2.0/24", seen="203.0.113.9"),
            Signal(type=SignalType.USER_AGENT_CHANGE, expected="Firefox on Linux", seen="curl"),
        ),
        reaction=Reaction.REVOKE_SESSION,
    ),
    replace(
        CREATED,
        revision=44,
        type=EventType.SOURCE_LOCKED,
        event_time=ago(minutes=3),
        subject="",
        session_id="",
        cause=Cause(kind=CauseKind.SIGNAL, actor="authority"),
        source="203.0.113.9/32",
        labels={},
    ),
    replace(
        CREATED,
        revision=45,
        type=EventType.SESSION_REVOKED,
        event_time=ago(seconds=40),
        cause=Cause(kind=CauseKind.REQUEST, actor="caller", reason="the customer called: the phone was stolen"),
    ),
)
LOCKS = (
    SourceLock(source="203.0.113.9/32", application="shop", lock_time=ago(minutes=3), expire_time=ahead(minutes=12)),
    SourceLock(source="2001:db8:85a3:8d3::/64", application="shop", lock_time=ago(hours=1), expire_time=ahead(hours=2)),
)


def certificates(names: Sequence[str], but: Sequence[str] = ()) -> tuple[CallerCredential, ...]:
    """The credentials for names in certificates."""
    return tuple(
        CallerCredential(id=name, create_time=ago(days=1), expire_time=None, certificate_name=name)
        for name in names
        if name not in but
    )


OPS = CallerInfo(
    name="ops",
    grants=(Grant(role=Role.ADMIN),),
    credentials=(CallerCredential(id="k3vq7a2xmd", create_time=ago(days=3), expire_time=None),),
    create_time=ago(days=40),
)
CALLERS = (
    CallerInfo(
        name="backup.region-eu.warehouse-and-reporting.internal-services",
        grants=(Grant(role=Role.SUBSCRIBER), Grant(role=Role.OPERATOR, application="a-shop-with-a-long-name")),
        credentials=(CallerCredential(id="zq5c4wnp2h", create_time=ago(hours=5), expire_time=None),),
        create_time=ago(hours=5),
    ),
    OPS,
    CallerInfo(
        name="shop-web",
        grants=tuple(Grant(role=role, application="shop") for role in (Role.ISSUER, Role.SUBSCRIBER, Role.VALIDATOR)),
        credentials=(
            CallerCredential(id="b6t3j2yhre", create_time=ago(days=2), expire_time=ago(minutes=4)),
            CallerCredential(id="m4d7xq5oia", create_time=ago(days=1), expire_time=ahead(hours=23, minutes=30)),
            CallerCredential(id="p2g6wzn3ku", create_time=ago(minutes=30), expire_time=None),
            *certificates(["spiffe://example.org/shop-web"]),
        ),
        create_time=ago(days=2),
    ),
)
_SEALING = SealingKey(
    fingerprint="9c1f4e2ab07d53c688f1a5d2e36b4c70",
    state=SealingKeyState.SEALING,
    state_time=ago(hours=2),
    holding_replicas=(),
    lacking_replicas=(),
    live_tokens=None,
    tokens_partial=False,
    tokens_end_time=None,
    tickets_end_time=None,
    sealed_values=31_220,
    moved_values=0,
    logs_out_sessions=False,
)
KEY_RING = KeyRing(
    keys=(
        replace(_SEALING, holding_replicas=("east-1", "east-2")),
        replace(
            _SEALING,
            fingerprint="4b7e0d9135fa62c81e4490bb7a3dc256",
            state=SealingKeyState.RETIRING,
            state_time=ago(minutes=3),
            holding_replicas=("east-1", "east-2"),
            live_tokens=1_208,
            tokens_end_time=ahead(hours=6),
            tickets_end_time=ago(hours=1),
            sealed_values=1_782,
            moved_values=29_411,
        ),
        replace(
            _SEALING,
            fingerprint="e03a7715cb98d2f4406d1b8fa95e7c31",
            state=SealingKeyState.ADDED,
            state_time=ago(seconds=20),
            holding_replicas=("east-1",),
            lacking_replicas=("east-2",),
            sealed_values=0,
        ),
    ),
    source="the key file /var/lib/sessiond/sessiond.key",
    change="",
    encrypts_data=True,
    plain_values=640,
    values_partial=False,
)
KEY = Token("sessiond_k3vq7a2xmd_" + "K" * 43)


@cache
def applications() -> tuple[Application, ...]:
    """Two applications as a server with `CONFIG` answers."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "sessiond.toml"
        file.write_text(CONFIG, encoding="utf-8")
        config = load_config(file)
    return tuple(
        application(pb.Application(name=name, policy=policy_message(policy, config.origins[name])))
        for name, policy in sorted(config.policies.items())
    )


class _Stream(list[Any]):
    """Events that come to an end."""

    cursor = "AQAAAAAAAAAt"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class FakeClient:
    """Has those methods of `Client` that `sessionctl` calls."""

    def __init__(self) -> None:
        self._revoked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def authority(self) -> Authority:
        return Authority(
            authority_id="6f1c2b9e-3a57-4d80-9b1e-2c44d8f0a713",
            version="0.1.0",
            revision=45,
            horizon=1,
            applications=applications(),
            consistency_token="",
            incarnation="3e0b7a64-91d2-4f0c-8a55-b1c7e9d24f86",
            policies_fingerprint="",
        )

    def create(self, *, subject: str, **_: Any) -> Created:
        if subject == "full":
            limit = ConcurrencyLimit(
                max_sessions=2, live_sessions=(ADA, WIDE_LETTERS), ticket=None, ticket_expire_time=None, live_count=2
            )
            raise ConcurrencyLimitReached(limit)
        return Created(
            session=replace(
                ADA, subject=subject, create_time=NOW, last_active_time=NOW, last_client=None, generation=0
            ),
            token=TOKEN,
            csrf_token=TOKEN,
            cookies=CookieDirectives(),
            evicted_session_ids=(ENDED.session_id,),
            consistency_token="",
        )

    def validate(self, token: Token, **_: Any) -> Validation:
        unmet = UnmetRequirement(
            kind=RequirementKind.LEVEL,
            remedy="authenticate with level 3 or higher",
            min_level=3,
            max_authentication_age=None,
        )
        enough = token.reveal() == "good"
        return Validation(
            verdict=Verdict.VALID if enough else Verdict.INSUFFICIENT,
            next_step=NextStep.PROCEED if enough else NextStep.STEP_UP,
            session=ADA,
            renewed_token=None,
            signals=() if enough else EVENTS[2].signals,
            unmet=() if enough else (unmet,),
            csrf_token=None,
            cookies=CookieDirectives(),
            data=None,
            cacheable_until=None,
            consistency_token="",
        )

    def get(self, *, session_id: str) -> Found:
        (session,) = [item for state in SESSIONS.values() for item in state if item.session_id == session_id]
        return Found(verdict=Verdict.VALID, session=session)

    def list(self, *, state: SessionState = SessionState.ACTIVE, **_: Any) -> Iterator[Session]:
        return iter(() if self._revoked else SESSIONS[state])

    def activity(self, subject: str, **_: Any) -> Iterator[Event]:
        return iter([event for event in reversed(EVENTS) if event.subject == subject])

    def events(self, **_: Any) -> _Stream:
        return _Stream([Checkpoint(revision=40, cursor=""), *EVENTS])

    def list_source_locks(self) -> Iterator[SourceLock]:
        return iter(LOCKS)

    def clear_source_lock(self, source: str, **_: Any) -> LockCleared:
        return LockCleared(consistency_token=source)

    def list_callers(self) -> tuple[CallerInfo, ...]:
        return CALLERS

    def create_caller(
        self,
        name: str,
        grants: Sequence[Grant],
        *,
        certificate_names: Sequence[str] = (),
        without_key: bool = False,
        **_: Any,
    ) -> CallerKey:
        credentials = (*(() if without_key else OPS.credentials), *certificates(certificate_names))
        caller = replace(OPS, name=name, grants=tuple(grants), credentials=credentials)
        return CallerKey(caller=caller, key=Token("") if without_key else KEY, consistency_token="")

    def rotate_caller(self, name: str, **_: Any) -> CallerKey:
        return CallerKey(caller=replace(OPS, name=name), key=KEY, consistency_token="")

    def update_caller_certificates(
        self, name: str, *, add: Sequence[str] = (), remove: Sequence[str] = (), **_: Any
    ) -> CallerUpdated:
        names = ["spiffe://example.org/shop-web", *add]
        return CallerUpdated(
            caller=replace(OPS, name=name, credentials=certificates(names, remove)), consistency_token=""
        )

    def revoke_caller(self, name: str, **_: Any) -> CallerRevoked:
        return CallerRevoked(consistency_token="")

    def key_ring(self, **_: Any) -> KeyRing:
        return KEY_RING

    def add_sealing_key(self, **_: Any) -> SealingKeyChanged:
        return SealingKeyChanged(key=KEY_RING.keys[2], consistency_token="")

    def promote_sealing_key(self, _: str, **__: Any) -> SealingKeyChanged:
        return SealingKeyChanged(key=KEY_RING.keys[0], consistency_token="")

    def retire_sealing_key(self, _: str, **__: Any) -> SealingKeyChanged:
        return SealingKeyChanged(key=KEY_RING.keys[1], consistency_token="")

    def revoke(self, **_: Any) -> Revoked:
        return Revoked(
            verdict=Verdict.VALID,
            revoked=True,
            session=ENDED,
            consistency_token="",
            cookies=CookieDirectives(),
            anonymous_session=None,
            token=None,
            csrf_token=None,
        )

    def revoke_all(self, **_: Any) -> RevokedAll:
        count = 0 if self._revoked else len(SESSIONS[SessionState.ACTIVE])
        self._revoked = True
        return RevokedAll(revoked_count=count, consistency_token="")

    def report_signal(self, **_: Any) -> SignalReported:
        return SignalReported(verdict=Verdict.VALID, reaction=Reaction.ALERT, consistency_token="")

    def get_data(self, **_: Any) -> Data:
        value = b'{"items": ["teapot", "cup", "cup", "saucer", "sugar bowl", "milk jug", "spoon", "napkin"]}'
        return Data(verdict=Verdict.VALID, data={"cart": value, "theme": b"dark"}, version=4)

    def update_data(self, **_: Any) -> DataUpdated:
        return DataUpdated(verdict=Verdict.VALID, version=5, consistency_token="", data=None)
