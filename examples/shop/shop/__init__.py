"""A small shop: one body of pages (`pages`), with sessions by our middleware or by a proxy in front."""
