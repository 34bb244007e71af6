"""Sessions in web frameworks: one module for each. Each is thin: the rules are in `sessiond_client.gateway`."""
