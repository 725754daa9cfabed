"""Features on disk: shards that any number of workers fill."""
