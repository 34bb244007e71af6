"""Caches: sessions, of which the newest revision wins, and activity that is saved with a delay."""
