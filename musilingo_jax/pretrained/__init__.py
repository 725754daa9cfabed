"""Other people's files ↔ our modules."""
