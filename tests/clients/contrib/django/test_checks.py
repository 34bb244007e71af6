"""Wrong settings are reported by Django's checks, and stop the server from starting where they must."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test.utils import override_settings

from sessiond_client.contrib.django.checks import check_settings
from sessiond_client.contrib.django.configuration import project
from sessiond_client.contrib.django.middleware import SessiondMiddleware
from sessiond_client.gateway import GatewaySettings, TrustedProxies

OURS = "sessiond_client.contrib.django.middleware.SessiondMiddleware"
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"
USERS = "django.contrib.auth.middleware.AuthenticationMiddleware"


def found(**settings: Any) -> list[tuple[str, str]]:
    """What the checks say about settings: the identifier and the text."""
    with override_settings(**settings):
        return [(item.id, item.msg) for item in check_settings(None)]


def test_right_settings() -> None:
    """The settings of these tests pass all of Django's checks, and ours are among them."""
    assert run_checks() == []
    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.db"):
        assert [item.id for item in run_checks()] == ["sessiond.E002"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"TARGT": "x"}, "unknown option 'targt'"),
        ({"LOGIN_PATH": "login"}, "login_path: 'login' is wrong: pass a path of this site"),
        ({"TARGET": 7443}, "TARGET is a text"),
        ({"target": "x"}, "write names in capitals"),
        (["x"], "pass a dictionary"),
        ({"TRUSTED_ORIGINS": "https://x.example"}, "trusted_origins: pass a list"),
    ],
)
def test_wrong_options(given: Any, text: str) -> None:
    """A wrong option is an error that names it, in the checks and when the server starts."""
    (first, message), *rest = found(SESSIOND=given)
    assert (first, rest) == ("sessiond.E001", [])
    assert text in message
    with override_settings(SESSIOND=given), pytest.raises(ImproperlyConfigured, match=text.split("(")[0]):
        SessiondMiddleware(lambda request: None)


def test_a_refusal_view_that_does_not_exist() -> None:
    """A `REFUSAL_VIEW` that cannot be imported is an error."""
    assert [item[0] for item in found(SESSIOND={"REFUSAL_VIEW": "no.such.view"})] == ["sessiond.E001"]


@pytest.mark.parametrize(
    ("middleware", "expected"),
    [
        ([], ["sessiond.E003"]),
        ([DJANGOS, USERS], ["sessiond.E003"]),
        ([OURS, DJANGOS, USERS], ["sessiond.E003"]),
        ([USERS, OURS], ["sessiond.E004"]),
        (["django.middleware.csrf.CsrfViewMiddleware", OURS, USERS], ["sessiond.E004"]),
        (["no.such.middleware", OURS, USERS], []),
        ([OURS, USERS], []),
    ],
)
def test_the_order_of_middleware(middleware: list[str], expected: list[str]) -> None:
    """The middleware must be there, in the place of Django's, and before all that use the session."""
    assert [item[0] for item in found(MIDDLEWARE=middleware)] == expected


def test_settings_without_effect() -> None:
    """Settings of Django that have no effect any more are warnings."""
    settings = {"SESSION_COOKIE_AGE": 60, "CSRF_TRUSTED_ORIGINS": ["https://*.example.com", "https://a.example.com"]}
    assert [item[0] for item in found(**settings)] == ["sessiond.W001", "sessiond.W002"]


def test_another_engine_stops_the_server() -> None:
    """The middleware refuses to work with another engine."""
    with (
        override_settings(SESSION_ENGINE="django.contrib.sessions.backends.db"),
        pytest.raises(ImproperlyConfigured, match="SESSION_ENGINE"),
    ):
        SessiondMiddleware(lambda request: None)


def test_an_application_that_is_not_installed() -> None:
    """The middleware refuses to work if the application is not in `INSTALLED_APPS`."""
    apps = ["django.contrib.contenttypes", "django.contrib.auth"]
    with override_settings(INSTALLED_APPS=apps), pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS"):
        SessiondMiddleware(lambda request: None)


def test_options_come_from_djangos_settings_too() -> None:
    """Login page, names of CSRF tokens and trusted origins are Django's, unless `SESSIOND` says otherwise."""
    django = {
        "LOGIN_URL": "secret_page",
        "ROOT_URLCONF": __name__,
        "CSRF_HEADER_NAME": "HTTP_X_XSRF_TOKEN",
        "CSRF_TRUSTED_ORIGINS": ["https://a.example.com"],
    }
    with override_settings(SESSIOND={}, **django):
        ours = project().gateway.settings
    assert (ours.login_path, ours.csrf_header) == ("/sign-in", "X-Xsrf-Token")
    assert (ours.csrf_field, ours.trusted_origins) == ("csrfmiddlewaretoken", ("https://a.example.com",))
    explicit: dict[str, Any] = {"LOGIN_PATH": None, "TRUSTED_PROXIES": TrustedProxies(hops=1), "TRUSTED_ORIGINS": []}
    with override_settings(SESSIOND=explicit, **django):
        ours = project().gateway.settings
    assert (ours.login_path, ours.trusted_proxies.hops, ours.trusted_origins) == (None, 1, ())
    assert GatewaySettings().login_path == "/login"


def _urls() -> list[Any]:
    from django.http import HttpResponse
    from django.urls import path

    return [path("sign-in", lambda request: HttpResponse(), name="secret_page")]


urlpatterns = _urls()


def test_clearsessions() -> None:
    """Django's command `clearsessions` has nothing to do, and says nothing."""
    from django.contrib.sessions.management.commands.clearsessions import Command

    assert call_command(Command()) is None
