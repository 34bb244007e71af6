"""A small shop: one body of pages (`pages`), with sessions by the middleware or by a proxy in front."""
