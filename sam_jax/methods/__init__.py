"""The library: every method as an Optax transformation."""
