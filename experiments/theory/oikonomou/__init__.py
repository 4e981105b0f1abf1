"""Oikonomou, Loizou, ICLR 2025, arXiv 2503.02225."""
