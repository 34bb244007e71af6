"""The event log: units of work, the journal that commits them, and the feed for subscribers."""
