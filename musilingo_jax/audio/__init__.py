"""A song file → waveform → pooled features → cache."""
