"""Features on disk, in shards that any number of processes can make and read.

    feature_cache        an experiment's cache: what it should hold
      fill               the job: plan, encode, index    `jobs` runs it
        encode_shards    clips → features → shards
    shards               the two files of a shard
    cache_state          what the folder holds, and which file is to be trusted
    reader               features by clip
    description          what a cache holds, for people
    export               the same for other tools

`clips.Clip` is what is encoded; `identity.Identity` is what its features depend on.
"""
