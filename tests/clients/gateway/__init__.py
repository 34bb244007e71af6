"""The gateway: each of its modules, and exchanges against a real authority with both clients."""
