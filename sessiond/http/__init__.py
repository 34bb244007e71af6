"""Forward authentication over HTTP: what proxies that do not speak Envoy's protocol ask about each request."""
