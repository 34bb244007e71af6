"""Upgrades from the version before, one process after another, under load."""
