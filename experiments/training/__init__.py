"""The published tables as commands, and what fills them."""
