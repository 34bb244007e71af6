"""Runs Django's own session tests against our backend and middleware, in a process of their own.

    python -m tests.suites.django_sessions ADDRESS FOLDER [--without CASE]...

`ADDRESS` is an authority's, `FOLDER` has Django's sources, and `CASE` is a case that is left out. Prints one JSON
document: the names of all cases, of those that ran, and the errors of those that failed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import unittest
import warnings
from pathlib import Path
from typing import Any

import django
from django.conf import settings


def configure(address: str) -> None:
    """The settings of Django's own test run, as far as these tests need them, with our engine and middleware."""
    settings.configure(
        SECRET_KEY="for tests",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sessions",
            "sessiond_client.contrib.django",
            "sessions_tests",
        ],
        ALLOWED_HOSTS=["testserver"],
        USE_TZ=False,
        SESSION_COOKIE_NAME="__Host-id",  # as the authority names it
        SESSION_ENGINE="sessiond_client.contrib.django.backend",
        SESSIOND={"TARGET": address},
    )
    django.setup()


def cases_of(suite: Any) -> list[unittest.TestCase]:
    """The cases in a suite."""
    if isinstance(suite, unittest.TestCase):
        return [suite]
    return [case for inner in suite for case in cases_of(inner)]


def name_of(case: unittest.TestCase) -> str:
    """Class and method."""
    return f"{type(case).__name__}.{case._testMethodName}"


def main() -> None:
    """Run the tests and print what came of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("folder")
    parser.add_argument("--without", action="append", default=[])
    arguments = parser.parse_args()
    address, folder = arguments.address, arguments.folder
    sys.path.insert(0, str(Path(folder) / "tests"))
    configure(address)
    utils = importlib.import_module("django.test.utils")
    suite: Any = importlib.import_module("sessions_tests.tests")
    loader = unittest.defaultTestLoader
    everything = sorted(name_of(case) for case in cases_of(loader.loadTestsFromModule(suite)))

    store = importlib.import_module("sessiond_client.contrib.django.backend").SessionStore
    middleware = importlib.import_module("sessiond_client.contrib.django.middleware").SessiondMiddleware
    testing = importlib.import_module("django.test")
    mixin: Any = type("SessionTestsMixin", (suite.SessionTestsMixin, testing.SimpleTestCase), {"backend": store})
    overlong = {"test_load_overlong_key": suite.CacheSessionTests.test_load_overlong_key}
    others = type("CacheSessionTests", (testing.SimpleTestCase,), {"setUp": mixin.setUp, "backend": store, **overlong})
    suite.SessionMiddleware, suite.DatabaseSession = middleware, store
    kinds = (mixin, others, suite.SessionMiddlewareTests)
    found = [case for kind in kinds for case in cases_of(loader.loadTestsFromTestCase(kind))]
    cases = unittest.TestSuite(case for case in found if name_of(case) not in arguments.without)
    names = [name_of(case) for case in cases_of(cases)]

    utils.setup_test_environment()
    connection = importlib.import_module("django.db").connection
    connection.creation.create_test_db(verbosity=0)
    warnings.simplefilter("error")
    result = unittest.TextTestRunner(stream=sys.stderr, verbosity=0).run(cases)
    failed = {name_of(case): text for case, text in [*result.failures, *result.errors]}
    sys.stdout.write(
        json.dumps({"everything": everything, "ran": names, "failed": failed, "skipped": len(result.skipped)})
    )


if __name__ == "__main__":
    main()
