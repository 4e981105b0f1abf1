"""The theory of three papers as experiments: one claim per file; see `__main__`."""
