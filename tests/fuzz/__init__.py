"""Fuzzing: what callers and files may contain, in any bytes."""
