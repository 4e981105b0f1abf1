"""Training runs behind the tables and pictures of the README."""
