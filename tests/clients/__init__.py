"""The Python client, the operator's command line and the demo, against a real authority."""
