-- SHA-256 of the CSRF token from before the last step-up, which pages in other tabs still send, and when that was.
ALTER TABLE sessions ADD COLUMN earlier_csrf BLOB;
ALTER TABLE sessions ADD COLUMN earlier_csrf_at INTEGER;
