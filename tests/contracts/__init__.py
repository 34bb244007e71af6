"""Suites that are inherited: what every engine must show."""

import pytest

pytest.register_assert_rewrite("tests.contracts.store", "tests.contracts.journal")
