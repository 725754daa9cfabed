"""Sound files, one kind of decoder a file; `files.open_sound` is the door."""
