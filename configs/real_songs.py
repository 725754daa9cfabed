"""What the embedded model says of real songs, against controls.

    make measure
    python -m musilingo_jax.recipes.measure --config=configs/real_songs.py

Purpose: to know how far printed answers about recordings can be trusted. Measured are
agreement with the teachers where these are sure (they are no truth), tempi against four
charts that others wrote and copies at other speeds, false alarms on speech, noise and
silence, whether the level of a song changes its answers, and whether answers that are
likely are right more often.

Data: 30 s of each of 122 songs in six packages that nothing was learnt from
(`musilingo_jax/recipes/recordings.py`). The first command also fetches them, and the
teachers' packages. The second leaves two corpora in `build/measured`, with which
`evaluate --config=configs/real_songs.py` can be run on its own.

Expected: ten minutes on two cores, most of them for the teachers, who are asked once.
To measure parts that a recipe has made: `--config.model.pretrained=build/tiny/model`.
"""

from ml_collections import ConfigDict

from musilingo_jax.training import embedded


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg="quick"` measures a few songs."""
    quick = arg == "quick"
    config = embedded.experiment("runs/real_songs")
    config.corpus.path = "build/measured/teachers/songs.jsonl"
    config.features.cache = config.get_ref("run") + "/cache"

    config.measure = ConfigDict()
    config.measure.work = "build/measured"
    config.measure.seconds = 10.0 if quick else 30.0
    config.measure.no_music = 1 if quick else 30
    config.measure.sung = 2 if quick else 60
    config.measure.songs = 3 if quick else 0
    config.measure.gains = (0.05, 0.25, 2.5)
    config.measure.gain_songs = 2 if quick else 40
    config.measure.draws = 2 if quick else 16
    config.measure.shown = 2 if quick else 10
    config.measure.seed = 20261130

    # How the model was taught to be asked: `configs/tiny_from_scratch.py`.
    config.stages = ("stage2",)
    stage2 = config.stage2 = embedded.second_stage()
    stage2.steps = 3000
    stage2.batch_size = 16
    stage2.rows = 8
    stage2.learning_rate = 1e-3
    stage2.final_learning_rate = 1e-4
    stage2.warmup_steps = 50
    return config
