"""Sessions in ASGI applications: Starlette, FastAPI (see `sessiond_client.contrib.fastapi`) and any other.

    app.add_middleware(SessiondMiddleware, target="127.0.0.1:7443")

    async def add(request):
        request.session.setdefault("cart", []).append("cup")

    @requires(level=2)
    async def payment(request): ...

Wherever a function takes `request`, pass a request or WebSocket of Starlette, or the scope of an ASGI application.
"""

from __future__ import annotations

from sessiond_client.contrib.asgi.connection import SCOPE_KEY, ResponseBegun
from sessiond_client.contrib.asgi.handlers import (
    csrf_token,
    current_session,
    current_subject,
    devices,
    end_device,
    end_other_devices,
    issue_companion,
    login,
    logout,
    logout_everywhere,
    recent_activity,
    require,
    requires,
    roll,
    save,
)
from sessiond_client.contrib.asgi.middleware import SessiondMiddleware
from sessiond_client.gateway import (
    Action,
    ActivityRow,
    DeviceRow,
    Refused,
    RouteRequirements,
    TrustedProxies,
    safe_path,
)

__all__ = [
    "SCOPE_KEY",
    "Action",
    "ActivityRow",
    "DeviceRow",
    "Refused",
    "ResponseBegun",
    "RouteRequirements",
    "SessiondMiddleware",
    "TrustedProxies",
    "csrf_token",
    "current_session",
    "current_subject",
    "devices",
    "end_device",
    "end_other_devices",
    "issue_companion",
    "login",
    "logout",
    "logout_everywhere",
    "recent_activity",
    "require",
    "requires",
    "roll",
    "safe_path",
    "save",
]
