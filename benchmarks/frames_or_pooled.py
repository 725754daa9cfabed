"""Frames against pooled windows, on tempo and key, through the whole chain.

    python benchmarks/frames_or_pooled.py --out=runs/frames --soundfont=A.sf2
    python benchmarks/frames_or_pooled.py --out=runs/frames --music=build/music

Music is measured (`annotate`), asked about (`instruct`), encoded and learnt from
(`train`), and other music is asked about in the form of the GiantSteps data sets
(`benchmark`), by four models that differ in nothing but what is said here:

    frames   eight vectors a second between two marks, as `configs/tiny_llark.py`
    pooled   a vector for 4.33 s, as `configs/tiny.py`
    lora     a LoRA of rank 8 beside the layers
    full     all layers

With `--soundfont`, the music is composed, and the questions' answers are those of the
score; with `--music`, the folder of `make music`, they are what `annotate` measures in
the packages that are left out, and is sure of. Stops and goes on like the programs that
it runs.
"""

import json
import subprocess
import sys
from pathlib import Path

from absl import app, flags

from musilingo_jax.benchmarks.giantsteps import END
from musilingo_jax.recipes import render

OUT = flags.DEFINE_string("out", None, "folder of everything", required=True)
FONT = flags.DEFINE_multi_string("soundfont", [], "plays composed music")
CLIPS = flags.DEFINE_integer("clips", 450, "composed clips, a third to ask about")
MUSIC = flags.DEFINE_string("music", None, "recordings, as `make music` leaves them")
LEARNT = flags.DEFINE_list(
    "learnt",
    [
        "ardentryst",
        "asc-music",
        "colobot-common-sounds",
        "fillets-ng-data",
        "flare-game",
        "freedroidrpg-data",
        "megaglest-data",
        "openclonk-data",
        "supertuxkart-data",
        "unknown-horizons",
        "warmux-data",
    ],
    "packages to learn from",
)
LEFT_OUT = flags.DEFINE_list(
    "left_out",
    [
        "drascula-music",
        "fretsonfire-songs-muldjord",
        "marsshooter-data",
        "starfighter-data",
        "supertux-data",
    ],
    "packages to ask about, which the embedded encoder did not learn from either",
)
STEPS = flags.DEFINE_integer("steps", 400, "updates of each model")
MODELS = flags.DEFINE_list(
    "models",
    ["frames-lora", "pooled-lora", "frames-full", "pooled-full"],
    "of those above",
)
# GiantSteps asks about what comes before its END.
SECONDS = END + 2
# Of `annotate`, in recordings: the share of beats that keep the tempo, and by how much
# the correlation of a key is above the next one's.
SURE = {"tempo": 0.9, "key": 0.1}

SETTINGS = {
    "frames": (),
    "pooled": (
        "--config.features.window_frames=108",
        "--config.features.chunk_windows=3",
        "--config.stage1.max_windows=8",
        "--config.bridge.marks=False",
    ),
    "lora": (),
    "full": (
        "--config.stage1.tuning.rank=0",
        "--config.stage1.learns_layers=True",
        "--config.stage1.learning_rate=1e-3",
        "--config.stage1.final_learning_rate=1e-4",
    ),
}


def call(program: str, *arguments: object) -> None:
    """Runs a program of this package, which must succeed."""
    words = [str(argument) for argument in arguments]
    print("musilingo", program, *words, flush=True)
    line = [sys.executable, "-m", f"musilingo_jax.{program}", *words]
    if status := subprocess.run(line, check=False).returncode:
        sys.exit(f"{program} ended with status {status}")


def composed(out: Path) -> tuple[Path, dict[str, dict[str, str]]]:
    """Clips: the songs to learn from, and what is true of the others."""
    folder = out / "composed"
    if not (folder / "songs.jsonl").exists():
        render.write_corpus(
            folder,
            clips=CLIPS.value,
            seed=11,
            soundfonts=FONT.value,
            duration=SECONDS,
            test_share=1 / 3,
            more=True,
        )
    rows = [json.loads(line) for line in (folder / "songs.jsonl").open()]
    learnt = sorted({row["audio"] for row in rows if row["split"] == "train"})
    true: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["split"] == "test" and row.get("attribute") in ("key", "beats"):
            name = str(folder / row["audio"])
            true.setdefault(name, {})[row["attribute"]] = row["value"]
    listed = folder / "learnt.jsonl"
    listed.write_text("".join(json.dumps({"audio": name}) + "\n" for name in learnt))
    return listed, {
        name: {"key": values["key"], "tempo": values["beats"]}
        for name, values in true.items()
    }


def linked(folder: Path, packages: list[str]) -> Path:
    """A folder with links to the songs of some packages."""
    for package in packages:
        (folder / package).mkdir(parents=True, exist_ok=True)
        for song in sorted((Path(MUSIC.value) / package / "music").iterdir()):
            link = folder / package / song.name
            if not link.is_symlink():
                link.symlink_to(song.resolve())
    return folder


def recorded(out: Path) -> tuple[Path, dict[str, dict[str, str]]]:
    """The folder to learn from, and what is measured and sure of the other songs."""
    left_out = linked(out / "left_out", LEFT_OUT.value)
    call(
        "annotate",
        left_out,
        f"--out={out / 'measured'}",
        "--fields=tempo,key",
        "--allow-missing",
    )
    sure: dict[str, dict[str, str]] = {}
    for line in (out / "measured/annotations.jsonl").open():
        row = json.loads(line)
        if row["seconds"] < SECONDS:
            continue
        name = str(left_out / row["audio"])
        for field, least in SURE.items():
            if row[field] and row[field]["confidence"] >= least:
                value = row[field]["value"]
                value = f"{value:.1f}" if field == "tempo" else value
                sure.setdefault(name, {})[field] = value
    return linked(out / "learnt", LEARNT.value), sure


def write_giantsteps(out: Path, known: dict[str, dict[str, str]]) -> None:
    """The files of the two data sets: an annotation for each sound, of its name."""
    sounds = out / "sounds"
    for folder in ("key", "tempo", "sounds"):
        (out / folder).mkdir(exist_ok=True)
    for number, (path, values) in enumerate(sorted(known.items())):
        link = sounds / f"{number:05d}{Path(path).suffix}"
        if not link.is_symlink():
            link.symlink_to(Path(path).resolve())
        for field, suffix in (("key", "key"), ("tempo", "bpm")):
            if field in values:
                file = out / field / f"{number:05d}.{suffix}"
                file.write_text(values[field] + "\n")


def main(argv: list[str]) -> None:
    """Goes through the chain."""
    del argv
    out = Path(OUT.value) / ("composed" if FONT.value else "recorded")
    out.mkdir(parents=True, exist_ok=True)
    source, known = composed(out) if FONT.value else recorded(out)
    write_giantsteps(out, known)
    audio = source.parent if source.is_file() else source
    call(
        "annotate",
        source,
        f"--out={out / 'annotations'}",
        "--fields=tempo,key",
        "--allow-missing",
    )
    call(
        "instruct",
        out / "annotations/annotations.jsonl",
        f"--audio={audio}",
        f"--out={out / 'pairs'}",
        "--families=understanding",
    )
    for model in MODELS.value:
        run = out / "runs" / model
        call(
            "train",
            "--config=configs/tiny_llark.py",
            f"--config.run={run}",
            f"--config.corpus.path={out / 'pairs/songs.jsonl'}",
            f"--config.features.cache={out / 'features' / model.split('-')[0]}",
            f"--config.stage1.steps={STEPS.value}",
            *(word for part in model.split("-") for word in SETTINGS[part]),
        )
        for field in ("key", "tempo"):
            call(
                "benchmark",
                f"giantsteps-{field}",
                f"--data={out / field}",
                f"--audio={out / 'sounds'}",
                f"--run={run}",
                f"--out={out / 'scores' / f'{model}-{field}'}",
            )
    show(out)


def show(out: Path) -> None:
    """Prints the scores of all models."""
    for field in ("key", "tempo"):
        for model in MODELS.value:
            report = out / "scores" / f"{model}-{field}" / "report.md"
            print(f"\n## {field}, {model}\n")
            lines = report.read_text(encoding="utf-8").splitlines()
            print("\n".join(line for line in lines if line.startswith("|")))


if __name__ == "__main__":
    app.run(main)
