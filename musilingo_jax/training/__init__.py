"""Records and features → the adapter."""
