"""What a proxy in front of an application asks about a web request, whichever protocol the proxy speaks.

An adapter for a proxy turns its message into a `WebRequest`, lets `check` decide, and turns the `Decision` into its own
response. All rules are those of the client's gateway, so an application behind a proxy gets the same as one with a
framework integration.
"""
