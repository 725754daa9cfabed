"""Work on a whole library, as pure functions of a shard.

    shard_plan     which items share a shard: written before any work
    share          which shards are this task's, and who else is at work in the folder
    job            plan → make this share's shards → finish, whoever was killed
      engine       in this process
      ray_engine   in the processes of a Ray cluster
    journal        what happened: who made which shard, when, how fast, who was lost
    row_shards     shards of JSON lines, for jobs that make a row of an item
    row_job        the job that fills them
    all_rows       all of them in one file, and what failed

A job says what its items are and makes one whole output file of each shard, from
nothing but the shard. So the files at the end have the same bytes whatever the engine,
the number of tasks, or who was killed.

    audio/cache        features of songs       ┐
    annotation         tempo, key, chords …    │ are such jobs
    captioning         captions and fields     ┘
"""
