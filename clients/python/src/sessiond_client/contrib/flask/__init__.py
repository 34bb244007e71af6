"""Sessions in Flask: `flask.session` is kept by sessiond, and every request is checked before any view runs.

    app = Flask(__name__)
    Sessiond(app, "127.0.0.1:7443")

    @app.post("/login")
    def log_in():
        ...                         # your own check of the password
        login(request.form["user"])
        return redirect(safe_path(request.args.get("next")))

The functions of this module act on the current request. They need a request context, as `flask.session` does.
"""

from __future__ import annotations

from sessiond_client.contrib.flask.extension import Sessiond, SessiondInterface
from sessiond_client.contrib.flask.session import SessiondSession
from sessiond_client.contrib.flask.views import (
    csrf_exempt,
    csrf_token,
    current_session,
    current_subject,
    devices,
    end_device,
    end_other_devices,
    login,
    logout,
    logout_everywhere,
    recent_activity,
    requires,
    roll,
)
from sessiond_client.gateway import Action, ActivityRow, DeviceRow, Refusal, Refused, safe_path

__all__ = [
    "Action",
    "ActivityRow",
    "DeviceRow",
    "Refusal",
    "Refused",
    "Sessiond",
    "SessiondInterface",
    "SessiondSession",
    "csrf_exempt",
    "csrf_token",
    "current_session",
    "current_subject",
    "devices",
    "end_device",
    "end_other_devices",
    "login",
    "logout",
    "logout_everywhere",
    "recent_activity",
    "requires",
    "roll",
    "safe_path",
]
