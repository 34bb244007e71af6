"""Suites that others wrote, run against the adapters. Each is fetched by the test run; none is part of this tree."""
