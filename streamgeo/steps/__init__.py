"""Steps: one family a file."""
