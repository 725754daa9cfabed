"""The embedded model and corpus, made from soundfonts, recordings, teachers and seeds.

    make recipe
    python -m musilingo_jax.recipes.tiny --config=configs/tiny_from_scratch.py

Purpose: to make the embedded model, `musilingo-tiny-5`, and the embedded corpus. The
first command also fetches what it is made from (3 GB, on Debian 12), runs the second,
and measures the result with `configs/real_songs.py`. After the colon, `quick` is a
smoke test: every stage in small, and a model that has learnt nothing:

    python -m musilingo_jax.recipes.tiny --config=configs/tiny_from_scratch.py:quick

Data: pieces composed by `musilingo_jax/corpora/synthetic.py`, and rendered with three
General MIDI soundfonts; a fourth is only used in evaluation. Excerpts of recordings
from 23 of Debian's packages (`musilingo_jax/recipes/recordings.py`), of which two
taggers and a transcriber say what they hear; six other packages are only used in
evaluation. Speech, from six packages, and from two others for evaluation; noise; and
excerpts to which a voice sings that is made of speech.

Start: the encoder begins with that of `musilingo-tiny-3`, which has heard the same
packages; the language model is that of `musilingo-tiny-2`. `scratch` begins with random
numbers instead, makes more steps, and trains a language model.

Expected: two and three quarter hours on two cores (2026-12-01), of which the encoder's
two stages together take an hour and a half, and 8 GB below `build/tiny`; `scratch`,
longer. What came of it is in `docs/embedded-model.md`.

It can be interrupted at any time; the same command resumes. What the teachers heard is
kept by digest, so that another training with the same recordings is half an hour
shorter.
"""

from ml_collections import ConfigDict

from musilingo_jax.training import embedded


def get_config(arg: str = "") -> ConfigDict:
    """The recipe's numbers.

    Args:
      arg: "quick" for a smoke run that learns nothing; "scratch" to begin the encoder
        with random numbers.
    """
    quick, scratch = arg == "quick", arg == "scratch"
    config = ConfigDict()
    config.work = "build/quick" if quick else "build/tiny"
    config.seed = 20261122

    config.render = ConfigDict()
    config.render.clips = 64 if quick else 4000
    config.render.held_out_clips = 32 if quick else 256
    config.render.seconds = 10.0
    config.render.training_soundfonts = ("FluidR3_GM.sf2", "MuseScore_General_Lite.sf3")
    config.render.more_soundfonts = ("sf_GMbank.sf2",)
    config.render.unseen_soundfont = "TimGM6mb.sf2"

    # Recordings under free licences, from packages of games, and what is no music.
    config.recordings = ConfigDict()
    config.recordings.spacing = 26.0
    config.recordings.most = 2 if quick else 8
    config.recordings.songs = 4 if quick else 0
    config.recordings.no_music = 4 if quick else 240
    config.recordings.sung = 4 if quick else 240

    # MERT's architecture, read from a config.json like that of the released models.
    # 24 kHz / (16·4·3·5) = 25 frames a second, a third of MERT's: the transformer costs
    # a third, and 108 frames are the 4.33 s over which MusiLingo averages. As many
    # frames for the positional convolution as in MERT are 5.12 s here: room for eight
    # beats of slow music.
    config.encoder = ConfigDict()
    config.encoder.model = {
        "model_type": "mert_model",
        "hidden_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "intermediate_size": 768,
        "conv_dim": (48, 96, 128, 128),
        "conv_kernel": (32, 8, 6, 10),
        "conv_stride": (16, 4, 3, 5),
        "num_feat_extract_layers": 4,
        "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16,
        "feat_extract_norm": "group",
        "do_stable_layer_norm": True,
        "feature_extractor_cqt": True,
        "feature_extractor_cqt_bins": 84,
        "sample_rate": 24000,
        "layer_norm_eps": 1e-5,
    }
    config.encoder.recipe = {
        "start": "" if quick or scratch else "musilingo-tiny-3/encoder",
        "steps": 4 if quick else 5000 if scratch else 4500,
        "parts": 2,
        "batch_size": 4,
        "recorded_batch_size": 4 if quick else 8,
        "learning_rate": 1e-3 if quick or scratch else 6e-4,
        "warmup_steps": 2 if quick else 150,
        "weight_decay": 0.05,
        "gradient_norm": 1.0,
        "frame_weight": 8.0,
        "heard_weight": 5.0,
        "window_frames": 108,
        "checkpoint_every": 2 if quick else 700,
        "seed": 1,
    }

    config.language = ConfigDict()
    config.language.read_pieces = 4 if quick else 200  # asked about after training
    config.language.model = {
        "model_type": "llama",
        "hidden_size": 160,
        "num_hidden_layers": 4,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "intermediate_size": 432,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    }
    config.language.recipe = {
        "start": "" if quick or scratch else "musilingo-tiny-2/language_model",
        "pieces": 200 if quick else 4000,
        "recordings": 200 if quick else 8000,
        "tokens": 800,
        "steps": 4 if quick else 5000,
        "short_rows": 48,
        "long_rows": 16,
        "short_length": 40,
        "long_length": 88,
        "short_share": 0.85,
        "learning_rate": 2e-3,
        "warmup_steps": 2 if quick else 100,
        "weight_decay": 0.05,
        "keep": (0.3, 0.6, 0.9),
        "asked": 0.97,
        "thin": 0.15,
        "blur": 0.4,
        "noise": 0.5,
        "checkpoint_every": 2 if quick else 1000,
        "seed": 2,
    }

    # The shipped adapter: a closed-form start, then both stages of `configs/tiny.py` on
    # more songs than the embedded corpus has.
    config.adapter = ConfigDict()
    config.adapter.clips = 48 if quick else 2000
    config.adapter.test_share = 0.0
    config.adapter.shrinkage = 0.01
    work = config.get_ref("work")
    train = config.adapter.train = embedded.experiment("")
    train.run = work + "/adapter"
    train.seed = 3
    train.model.encoder = work + "/model/encoder"
    train.model.language_model = work + "/model/language_model"
    train.model.adapter = work + "/start"
    train.corpus.path = ""
    train.corpus.mixture = {
        "composed": {"path": work + "/songs/songs.jsonl", "weight": 0.5},
        "recorded": {"path": work + "/recorded_songs/songs.jsonl", "weight": 0.5},
    }
    train.stages = ("stage1", "stage2")

    stage1 = train.stage1 = embedded.first_stage()
    stage1.steps = 4 if quick else 300
    stage1.warmup_steps = 2 if quick else 30
    stage1.learning_rate = 1e-3
    stage1.final_learning_rate = 3e-4

    stage2 = train.stage2 = embedded.second_stage()
    stage2.steps = 4 if quick else 6000
    stage2.warmup_steps = 2 if quick else 50
    stage2.learning_rate = 1e-3
    stage2.final_learning_rate = 2e-5

    stage1.batch_size = stage2.batch_size = 32
    stage1.rows = stage2.rows = 4 if quick else 8
    stage1.checkpoint_every = stage2.checkpoint_every = 250

    # The embedded corpus.
    config.corpus = ConfigDict()
    config.corpus.clips = 16 if quick else 96
    config.corpus.test_share = 1 / 3
    return config
