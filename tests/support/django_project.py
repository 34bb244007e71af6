"""Django's settings for all tests of this process. They can be configured once; tests override what they change."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

__all__ = ["configure"]

_MIDDLEWARE = [
    "sessiond_client.contrib.django.middleware.SessiondMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]


def configure() -> None:
    """Configure Django, and create the tables of its users. Does nothing the second time."""
    import django
    from django.conf import settings

    if settings.configured:
        return
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    settings.configure(
        SECRET_KEY="for tests",
        ALLOWED_HOSTS=["localhost"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(Path(folder) / "users.db"),
                "OPTIONS": {"timeout": 20},
            }
        },
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.messages",
            "sessiond_client.contrib.django",
        ],
        MIDDLEWARE=_MIDDLEWARE,
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
            }
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        ROOT_URLCONF="tests.clients.contrib.django.shop",
        LOGIN_URL="/login",
        USE_TZ=True,
        SESSION_COOKIE_NAME="__Host-id",
        SESSION_ENGINE="sessiond_client.contrib.django.backend",
        SESSIOND={"TARGET": "127.0.0.1:1"},
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User

    for name in ("alice", "bob"):
        User.objects.create_user(name, password="teapot")
