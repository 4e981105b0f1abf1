"""Si, Yun, NeurIPS 2023, arXiv 2306.09850."""
