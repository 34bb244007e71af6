"""Detection: client facts, and the bounded memory of uses, suspicions and guesses."""
