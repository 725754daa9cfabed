"""Your own songs: trains a trained adapter further on what you write about them.

    python -m musilingo_jax.train --config=configs/own_songs.py:path/to/songs.jsonl

Purpose: fine-tuning, which is the second stage only, from the shipped adapter.

Data: a file with one line per question, and paths relative to the file:

    {"audio": "a.ogg", "question": "How fast is it?", "answer": "It is slow."}
    {"audio": "b.mp3", "question": "Who plays?", "answer": "A piano.", "split": "test"}

Lines without `split` are trained on; those of the split "test" are for evaluation.
`start` and `end`, in seconds, select the stretch of the song that a line is about. A
table saved as CSV with the same keys can be used instead of JSON lines, and the folder
of the file instead of its path.

Songs may have any length. They are encoded in chunks of 13 seconds, and each time a
song is drawn, it is a stretch of up to eight windows of 4.33 seconds.

Expected: a minute or two on a laptop for a few dozen songs. The model is the embedded
one, which is tiny; `configs/musilingo.py` does the same with a released one. What it
has learnt is measured by

    python -m musilingo_jax.evaluate --config=configs/own_songs.py:path/to/songs.jsonl
"""

from ml_collections import ConfigDict

from musilingo_jax.training import embedded


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is the path of the songs' file, `songs.jsonl` if empty."""
    config = embedded.experiment("runs/own_songs")
    config.corpus.path = arg or "songs.jsonl"

    config.stages = ("stage2",)
    stage2 = config.stage2 = embedded.second_stage()
    stage2.steps = 200
    stage2.batch_size = 8
    stage2.rows = 8  # Fewer save padding, which pays in runs of many updates.
    stage2.learning_rate = 3e-4
    stage2.final_learning_rate = 1e-4
    stage2.warmup_steps = 20
    return config
