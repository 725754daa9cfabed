"""Files of every kind that the programs read, small, and made by the programs.

config.py                 of a run of 2 + 4 updates; all its paths are relative
encoder/ language_model/  random models
corpus/                   four songs, songs.jsonl
cache/                    their features
run/                      a finished run
stopped/                  one that SIGTERM stopped in stage 2, with a checkpoint
answers.jsonl             as `generate` writes it; started.jsonl lacks its end
predictions.jsonl         answers with every kind of fact
sounds/FORMAT/            a corpus of one song in that format
published/CORPUS/         annotation files as others publish them
torch/                    the language model as pytorch_model.bin; adapter.pth
meta/                     the language model in Meta's layout, in two files
delta/ lora/              what `convert merge` adds to the language model
"""

import csv
import json
import pprint
import runpy
import shutil
import signal
from pathlib import Path

import numpy as np
import soundfile
from flax import nnx
from helpers import lora_folders, meta_folders, sine_soundfont, small_run
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

from campaign import attempt, inside
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.parts import Parts
from musilingo_jax.pretrained import weights

CONFIG = "--config=config.py"
SOUNDS = {
    "wav": ("wav", "PCM_16"),
    "float": ("wav", "FLOAT"),
    "adpcm": ("wav", "MS_ADPCM"),
    "flac": ("flac", "PCM_16"),
    "ogg": ("ogg", "VORBIS"),
    "opus": ("ogg", "OPUS"),
    "mp3": ("mp3", "MPEG_LAYER_III"),
    "npy": ("npy", ""),
}
_NUMBERS = {
    "stage1__steps": 2,
    "stage2__steps": 4,
    "stage1__warmup_steps": 1,
    "stage2__warmup_steps": 1,
    "stage1__checkpoint_every": 2,
    "stage2__checkpoint_every": 2,
    "features__shard_clips": 2,
    "generate__max_new_tokens": 8,
    "corpus__test_split": "train",
    "mesh__data": 1,
}


def make(folder: Path, *, trained: bool = True) -> None:
    """Fills a new folder.

    Args:
      folder: to be made.
      trained: whether to train, which takes most of the time; without it there is a run
        with a random adapter, and neither `stopped/` nor `cache/` nor answers.

    Raises:
      RuntimeError: one of the programs failed.
    """
    folder.mkdir(parents=True)
    small_run.make_models(folder)
    small_run.make_corpus(folder / "corpus", songs=4)
    config = small_run.small_config(Path(), "run", **_NUMBERS)
    _write_config(folder / "config.py", config)
    if trained:
        _train(folder)
        _write_recipe(folder)
    else:
        adapter = LinearBridge(
            small_run.ENCODER["hidden_size"],
            small_run.LANGUAGE_MODEL["hidden_size"],
            rngs=nnx.Rngs(2),
        )
        run = folder / "run"
        weights.save_adapter(
            Parts(bridge=adapter),
            run / "adapter",
            dtype="float32",
            window_frames=10,
            trained_with=None,
        )
        (run / "config.json").write_text(config.to_json_best_effort())
    _write_predictions(folder / "predictions.jsonl")
    for name in SOUNDS:
        _write_sound(folder / "sounds" / name, name)
    _write_published(folder / "published")
    _write_torch(folder)
    _write_meta(folder)
    _write_lora(folder)
    shutil.copytree(folder / "language_model", folder / "delta")
    path = folder / "delta" / "model.safetensors"
    save_file({k: v / 1000 for k, v in load_file(path).items()}, path)


def _run(folder: Path, status: int, *command: str, prelude: str = "") -> None:
    done = attempt.run(attempt.Attempt(folder, [command], Path(), prelude))
    if done.returncode != status:
        raise RuntimeError(f"{command}: status {done.returncode}\n{done.stderr}")


def _train(folder: Path) -> None:
    _run(folder, 0, "train", CONFIG)
    # At its fourth row, which is that of the second update of stage 2.
    stop = inside.kill_at_change(4, signal.SIGTERM, "metrics.jsonl")
    _run(folder, 143, "train", CONFIG, "--config.run=stopped", prelude=stop)
    _run(folder, 0, "generate", CONFIG, "--out=answers.jsonl")
    lines = (folder / "answers.jsonl").read_text().splitlines(keepends=True)
    (folder / "started.jsonl").write_text("".join(lines[:2]))


def _write_recipe(folder: Path) -> None:
    path = small_run.ROOT / "tests" / "recipes" / "test_tiny.py"
    smallest = runpy.run_path(str(path))["smallest"]
    config = smallest("new")
    _write_config(folder / "recipe.py", config)
    names = (*config.render.training_soundfonts, config.render.unseen_soundfont)
    for partials, name in enumerate(names, start=1):
        sine_soundfont.write(folder / "fonts" / name, partials)


def _write_config(path: Path, config: ConfigDict) -> None:
    path.write_text(
        '"""All numbers of a small run."""\n\n'
        "from ml_collections import ConfigDict\n\n"
        f"NUMBERS = {pprint.pformat(config.to_dict())}\n\n\n"
        "def get_config(arg=''):\n"
        "    return ConfigDict(NUMBERS)\n"
    )


def _write_predictions(path: Path) -> None:
    facts = (
        ("key", "F# minor", "It is in F sharp minor."),
        ("tempo", 120, "About 118 BPM."),
        ("genre", "Hip-Hop", "A hip hop beat."),
        ("instruments", "piano, drums", "Piano and no drums."),
        ("mood", "calm", "calm and slow"),
    )
    rows = []
    for clip in range(4):
        for attribute, value, answer in facts:
            rows.append(
                {
                    "clip": f"songs/{clip}.mp3",
                    "question": f"Which {attribute}?",
                    "reference": f"The {attribute} is {value}.",
                    "answer": answer,
                    "attribute": attribute,
                    "value": value,
                }
            )
        rows.append(
            {
                "clip": f"songs/{clip}.mp3",
                "question": "Which one plays?",
                "reference": "(B) guitar",
                "answer": "B",
                "options": ["piano", "guitar"],
                "value": "B",
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_sound(folder: Path, name: str) -> None:
    suffix, subtype = SOUNDS[name]
    folder.mkdir(parents=True)
    time = np.arange(24_000) / 24_000
    noise = np.random.default_rng(0).normal(0, 0.02, 24_000)
    sound = (0.3 * np.sin(2 * np.pi * 330 * time) + noise).astype(np.float32)
    path = folder / f"song.{suffix}"
    if suffix == "npy":
        np.save(path, sound)
    else:
        soundfile.write(path, sound, 24_000, format=suffix.upper(), subtype=subtype)
    row: dict[str, str | int] = {
        "audio": path.name,
        "question": "What is it?",
        "answer": "A tone.",
    }
    if suffix == "npy":
        row["rate"] = 24_000
    (folder / "songs.jsonl").write_text(json.dumps(row) + "\n")


def _write_published(folder: Path) -> None:
    for name in ("musiccaps", "music_instruct", "music_qa", "lp_musiccaps_msd"):
        (folder / name).mkdir(parents=True)
    ids = [f"id{number}" for number in range(4)]
    for name in ("musiccaps", "music_instruct"):
        with (folder / name / "musiccaps-public.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["ytid", "start_s", "end_s", "caption", "is_audioset_eval"])
            for number, ytid in enumerate(ids):
                writer.writerow(
                    [ytid, 0, 1, f'A "calm"\nsong {number}.', number % 2 == 0]
                )
            writer.writerow(["gone", 0, 1, "Not here.", True])
    questions = [
        {"ytid": ytid, "question": "Why?", "answer": f"It is {ytid}."}
        | {"is_audioset_eval": number % 2 == 0}
        for number, ytid in enumerate(ids)
    ]
    for file in ("music_instruct", "music_instruct_short", "music_instruct_long"):
        path = folder / "music_instruct" / f"{file}.json"
        path.write_text(json.dumps({"QA": questions}))
    rows = [
        {
            "audio_name": f"{ytid}.wav",
            "conversation": [
                {"from": "human", "value": "Why?"},
                {"from": "gpt", "value": f"It is {ytid}."},
            ],
        }
        for ytid in ids
    ]
    for file in ("PretrainMusicQA", "FinetuneMusicQA", "EvalMusicQA"):
        (folder / "music_qa" / f"{file}.json").write_text(json.dumps(rows))
    _write_parquet(folder / "lp_musiccaps_msd" / "data", ids)
    for corpus in folder.iterdir():
        for ytid in ids:
            sound = np.sin(np.arange(4000) / 9).astype(np.float32)
            soundfile.write(corpus / f"{ytid}.wav", sound, 4000)


def _write_parquet(folder: Path, ids: list[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    folder.mkdir()
    for split in ("train", "valid", "test"):
        columns = {
            "track_id": ids,
            "title": ["A title"] * len(ids),
            "path": [f"a/{name}.wav" for name in ids],
        }
        columns |= {
            f"caption_{kind}": [f"A {kind} of {name}." for name in ids]
            for kind in ("writing", "summary", "paraphrase", "attribute_prediction")
        }
        path = folder / f"{split}-00000-of-00001.parquet"
        pyarrow.parquet.write_table(pyarrow.table(columns), path)


def _write_torch(folder: Path) -> None:
    import torch
    from safetensors import torch as safetensors

    made = folder / "torch"
    made.mkdir()
    tensors = safetensors.load_file(folder / "language_model" / "model.safetensors")
    torch.save(tensors, made / "pytorch_model.bin")
    shutil.copy(folder / "language_model" / "config.json", made)
    adapter = safetensors.load_file(folder / "run" / "adapter" / "model.safetensors")
    torch.save({"model": adapter, "epoch": 3}, folder / "adapter.pth")


def _write_meta(folder: Path) -> None:
    import transformers

    model = transformers.LlamaForCausalLM.from_pretrained(folder / "language_model")
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "norm_eps": 1e-6}
    mlp = {"multiple_of": 8, "ffn_dim_multiplier": 0.57, "vocab_size": -1}
    tensors = meta_folders.meta_tensors(model)
    meta_folders.write_meta(folder / "meta", tensors, sizes | mlp, shards=2)
    for path in (folder / "language_model").glob("tokenizer*"):
        shutil.copy(path, folder / "meta")


def _write_lora(folder: Path) -> None:
    import torch

    tensors = {}
    for layer in range(2):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = torch.full((2, 32), 0.1)
        tensors[f"{name}.lora_B.weight"] = torch.full((32, 2), 0.1)
    settings = {"r": 2, "target_modules": ["q_proj"]}
    base = {"base_model_name_or_path": "language_model"}
    lora_folders.write_lora(folder / "lora", tensors, **settings, **base)
