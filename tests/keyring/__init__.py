"""Tests of the key ring: its commands, replicas, sources, and sealing again."""
