"""Sessions in Django: `request.session` is kept by sessiond, and Django's own login and logout work with it.

In the settings:

    INSTALLED_APPS = [..., "sessiond_client.contrib.django"]
    MIDDLEWARE = [..., "sessiond_client.contrib.django.middleware.SessiondMiddleware", ...]  # not SessionMiddleware
    SESSION_ENGINE = "sessiond_client.contrib.django.backend"
    SESSIOND = {"TARGET": "127.0.0.1:7443"}

The functions of this module take the request first. Those whose names begin with `a` are for asynchronous views.
"""

from __future__ import annotations

from sessiond_client.contrib.django.account import (
    acsrf_token,
    adevices,
    aend_device,
    aend_other_devices,
    alogout_everywhere,
    arecent_activity,
    asessiond_login,
    csrf_token,
    current_session,
    devices,
    end_device,
    end_other_devices,
    logout_everywhere,
    recent_activity,
    sessiond_login,
)
from sessiond_client.contrib.django.csrf import csrf_protect
from sessiond_client.contrib.django.requirements import requires
from sessiond_client.gateway import Action, ActivityRow, DeviceRow, Refusal, Refused, TrustedProxies, safe_path

__all__ = [
    "Action",
    "ActivityRow",
    "DeviceRow",
    "Refusal",
    "Refused",
    "TrustedProxies",
    "acsrf_token",
    "adevices",
    "aend_device",
    "aend_other_devices",
    "alogout_everywhere",
    "arecent_activity",
    "asessiond_login",
    "csrf_protect",
    "csrf_token",
    "current_session",
    "devices",
    "end_device",
    "end_other_devices",
    "logout_everywhere",
    "recent_activity",
    "requires",
    "safe_path",
    "sessiond_login",
]
