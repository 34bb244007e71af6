"""The Postgres store: any number of replicas share it."""
