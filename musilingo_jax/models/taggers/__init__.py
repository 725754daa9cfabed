"""Models that name what is heard: teachers, and measures, of the embedded model."""
