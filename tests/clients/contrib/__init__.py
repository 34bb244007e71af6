"""Tests of the adapters for frameworks."""
