"""The example shop, walked with a real browser, in both of its forms."""
