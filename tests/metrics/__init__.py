"""What a server says of itself to Prometheus."""
