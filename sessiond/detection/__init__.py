"""Detection of misuse: client facts, and the use of sessions, suspicions and guesses, all in bounded memory."""
