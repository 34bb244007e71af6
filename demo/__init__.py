"""`make demo`: one session's story on a throwaway authority, its events beside it."""
