"""Experiments over the package; never imported by it."""
