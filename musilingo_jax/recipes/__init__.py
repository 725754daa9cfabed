"""How the embedded model and corpus are made, from nothing."""
