"""The store: its contract, and the database engines, which share their statements and the conversion of rows."""
