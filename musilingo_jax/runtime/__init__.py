"""The process: flags, signals, several processes, files, sharding."""
