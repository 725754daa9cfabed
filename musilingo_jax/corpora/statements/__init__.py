"""What a text states about the music: values, keys, tempos, and what it denies."""
