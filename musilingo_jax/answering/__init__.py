"""A question about a song → text."""
