"""A page on which people ask questions about songs."""
