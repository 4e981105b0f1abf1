"""Programs that write and check the documentation."""
