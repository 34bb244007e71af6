"""The ASGI adapter: Starlette, FastAPI, and ASGI itself."""
