"""Khanh, Luong, Mordukhovich, Tran, NeurIPS 2024, arXiv 2401.08060."""
