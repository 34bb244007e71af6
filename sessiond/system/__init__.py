"""Access to the machine: clock, randomness, logs and report files; and a bounded map."""
