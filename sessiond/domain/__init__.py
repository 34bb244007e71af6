"""What sessions are and what may happen to them: pure functions of (state, input, now), standard library only."""
