"""Other forms of released weights."""
