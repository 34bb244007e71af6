"""The gateway: the rules for sessions in web requests, without a framework."""
