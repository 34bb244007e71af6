"""The Django adapter: a shop behind WSGI and ASGI, with synchronous and asynchronous views."""
