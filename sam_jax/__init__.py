"""Sharpness-aware minimization (SAM) for JAX."""
