"""The domain model of sessions: pure functions of (state, input, now) that use the standard library only."""
