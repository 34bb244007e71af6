"""What a process takes from its machine: the clock, randomness, logs, bounded memory."""
