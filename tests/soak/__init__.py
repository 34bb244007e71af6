"""A soak: many clients with near caches use an authority for minutes, and nothing grows."""
