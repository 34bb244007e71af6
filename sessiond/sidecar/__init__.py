"""The sidecar: the authority's service on a local address, answered from memory or by an authority elsewhere."""
