"""Claims of ours: the same questions beyond the papers."""
