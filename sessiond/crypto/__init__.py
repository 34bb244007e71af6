"""Cryptography: tokens and what is derived from them, keys, and session data at rest."""
