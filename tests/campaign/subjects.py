"""Every kind of file that we read, with the cheapest program that reads it."""

import dataclasses
from pathlib import Path

from campaign import hostile_pickles, results, words
from campaign.attempt import Attempt, Mutator
from campaign.byte_mutations import damage_bytes, flip_bit, recode
from campaign.file_mutations import rename, replace_file, replace_folder
from campaign.json_mutations import damage_header, damage_json, damage_line
from campaign.results import Result
from campaign.workspace import CONFIG, SOUNDS

CHAT = ("chat", "sounds/wav/song.wav", "--run=run", "--ask=How fast is it?")
TRAIN = ("train", CONFIG, "--config.run=stopped")
EXPORT = ("cache", "export", "cache", "--out=x.npz")
PREDICTIONS = ("evaluate", "--predictions={target}", "--json=s.json")
SURVEY = ("corpora.build", "own_songs", "--source={target}", "--inspect", "--out=x")
ADAPTER = ("convert", "adapter", "{target}", "--out=converted", "--window_frames=10")
BYTES = (damage_bytes, flip_bit)
TEXT = (damage_bytes, recode)
FILES = (replace_file, replace_folder)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A kind of file.

    Attributes:
      name: of the kind, in reports.
      files: patterns of paths in the workspace; one of the files is damaged.
      commands: what is run; `{target}` is the damaged file, `{folder}` where it is.
      mutators: of which one damages it; those named twice come twice as often.
      result: what the programs compute.
      count: inputs of the whole campaign.
      guarded: whether we wrote the file and could tell any damage.
      names: what else may name the file in a message; "" is in every message.
    """

    name: str
    files: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]
    mutators: tuple[Mutator, ...]
    result: Result
    count: int
    guarded: bool = False
    names: tuple[str, ...] = ()

    def targets(self, workspace: Path) -> list[Path]:
        """The files, relative to the workspace."""
        found = {path for pattern in self.files for path in workspace.glob(pattern)}
        return sorted(path.relative_to(workspace) for path in found if path.is_file())

    def attempt(self, place: Path, target: Path) -> Attempt:
        """The undamaged input in a copy of the workspace."""
        known = {"target": str(target), "folder": str(target.parent)}
        commands = [
            tuple(word.format(**known) for word in command) for command in self.commands
        ]
        return Attempt(place, commands, target)


def _corpus(name: str, *source: str, **options) -> Subject:
    """The annotations of a published corpus."""
    return Subject(
        name=f"published/{name}",
        commands=(("corpora.build", name, "--source={folder}", *source, "--inspect"),),
        result=results.text,
        **options,
    )


SUBJECTS = (
    Subject(
        name="safetensors header",
        files=("encoder/*.safetensors", "language_model/*.safetensors"),
        commands=(("convert", "--inspect", "{folder}"),),
        mutators=(damage_header, damage_header, damage_bytes, *FILES),
        result=results.text,
        count=350,
    ),
    Subject(
        name="safetensors data",
        files=(
            "encoder/*.safetensors",
            "language_model/*.safetensors",
            "run/adapter/*.safetensors",
        ),
        commands=(("convert", "export", "run", "--out=exported"),),
        mutators=(*BYTES, damage_header),
        result=results.files("exported/*"),
        count=300,
        names=("tensor",),
    ),
    Subject(
        name="config of a part",
        files=(
            "encoder/config.json",
            "language_model/config.json",
            "run/adapter/*.json",
        ),
        commands=(CHAT,),
        mutators=(damage_json, damage_json, damage_json, *TEXT, *FILES),
        result=results.text,
        count=350,
        names=("encoder", "language_model", "run"),
    ),
    Subject(
        name="config of a run",
        files=("run/config.json",),
        commands=(CHAT,),
        mutators=(damage_json, damage_json, damage_json, *TEXT, *FILES),
        result=results.text,
        count=350,
        names=("",),
    ),
    Subject(
        name="tokenizer",
        files=("language_model/tokenizer*.json",),
        commands=(CHAT,),
        mutators=(damage_json, damage_json, *TEXT, replace_file),
        result=results.text,
        count=250,
        names=("language_model",),
    ),
    *(
        Subject(
            name=f"song {name}",
            files=(f"sounds/{name}/song.*",),
            commands=(
                (
                    "cache",
                    CONFIG,
                    "--config.corpus.path={folder}/songs.jsonl",
                    "--config.corpus.test_split=",
                    "--config.features.cache=new",
                ),
                ("cache", "export", "new", "--out=x.npz"),
            ),
            mutators=(*BYTES, damage_bytes, damage_bytes, replace_file),
            result=results.arrays("x.npz"),
            count=90,
        )
        for name in SOUNDS
    ),
    Subject(
        name="songs.jsonl",
        files=("corpus/songs.jsonl",),
        commands=(SURVEY,),
        mutators=(damage_line, damage_line, damage_line, *TEXT, *FILES),
        result=results.text,
        count=500,
    ),
    _corpus(
        "musiccaps",
        files=("published/musiccaps/*.csv",),
        mutators=(*TEXT, *FILES),
        count=150,
    ),
    _corpus(
        "music_instruct",
        files=("published/music_instruct/music_instruct.json",),
        mutators=(damage_json, damage_json, *TEXT, *FILES),
        count=150,
    ),
    _corpus(
        "music_qa",
        files=("published/music_qa/*.json",),
        mutators=(damage_json, damage_json, *TEXT, *FILES),
        count=150,
    ),
    Subject(
        name="published/lp_musiccaps_msd",
        files=("published/lp_musiccaps_msd/data/*.parquet",),
        commands=(
            (
                "corpora.build",
                "lp_musiccaps_msd",
                "--source=published/lp_musiccaps_msd",
                "--inspect",
            ),
        ),
        mutators=(*BYTES, *FILES),
        result=results.text,
        count=150,
    ),
    Subject(
        name="cache, exported",
        files=("cache/*", "cache/plans/*"),
        commands=(EXPORT,),
        mutators=(*BYTES, damage_bytes, replace_file),
        result=results.arrays("x.npz"),
        count=350,
        guarded=True,
    ),
    Subject(
        name="cache, filled again",
        files=("cache/*", "cache/plans/*"),
        commands=(("cache", CONFIG), EXPORT),
        mutators=(*BYTES, damage_bytes, replace_file),
        result=results.arrays("x.npz"),
        count=250,
        guarded=True,
    ),
    Subject(
        name="cache's JSON",
        files=("cache/*.json", "cache/plans/*.json"),
        commands=(("cache", CONFIG), EXPORT),
        mutators=(damage_json, damage_json, recode),
        result=results.arrays("x.npz"),
        count=200,
        guarded=True,
    ),
    Subject(
        name="cache's index",
        files=("cache/index.jsonl",),
        commands=(EXPORT,),
        mutators=(damage_line, damage_line, recode),
        result=results.arrays("x.npz"),
        count=150,
        guarded=True,
    ),
    Subject(
        name="predictions",
        files=("predictions.jsonl",),
        commands=(PREDICTIONS,),
        mutators=(damage_line, damage_line, damage_line, *TEXT, replace_file),
        result=results.files("s.json"),
        count=500,
    ),
    Subject(
        name="answers of a stopped generate",
        files=("started.jsonl",),
        commands=(("generate", CONFIG, "--out=started.jsonl"),),
        mutators=(damage_line, damage_line, *TEXT, replace_file),
        result=results.files("started.jsonl"),
        count=120,
        # An answer may be edited by hand, and is then another answer.
    ),
    Subject(
        name="checkpoint",
        files=("stopped/stage2/checkpoints/**/*",),
        commands=(TRAIN,),
        mutators=(*BYTES, damage_bytes, *FILES),
        result=results.training("stopped"),
        count=200,
        guarded=True,
        names=("stopped/stage2/checkpoints",),
    ),
    Subject(
        name="bits of a checkpoint",
        files=("stopped/stage2/checkpoints/**/*",),
        commands=(TRAIN,),
        mutators=(flip_bit,),
        result=results.training("stopped"),
        count=60,
        guarded=True,
        names=("stopped/stage2/checkpoints",),
    ),
    Subject(
        name="JSON of a checkpoint",
        files=(
            "stopped/stage2/checkpoints/*/metrics/metrics",
            "stopped/stage2/checkpoints/*/config/metadata",
            "stopped/stage2/checkpoints/*/state/_METADATA",
        ),
        commands=(TRAIN,),
        mutators=(damage_json, damage_json, recode),
        result=results.training("stopped"),
        count=80,
        guarded=True,
        names=("stopped/stage2/checkpoints",),
    ),
    Subject(
        name="JSON of a stopped run",
        files=("stopped/*.json", "stopped/*/examples.json"),
        commands=(TRAIN,),
        mutators=(damage_json, damage_json, *TEXT, replace_file),
        result=results.training("stopped"),
        count=120,
        guarded=True,
        names=("stopped",),
    ),
    Subject(
        name="metrics of a stopped run",
        files=("stopped/metrics.jsonl",),
        commands=(TRAIN,),
        mutators=(damage_line, damage_line, *TEXT, replace_file),
        result=results.training("stopped", history=False),
        count=80,
        guarded=True,
    ),
    Subject(
        name="PyTorch file",
        files=("torch/pytorch_model.bin",),
        commands=(("convert", "safetensors", "torch", "--out=converted"),),
        mutators=(*BYTES, *hostile_pickles.MUTATORS, *FILES),
        result=results.files("converted/*.safetensors"),
        count=350,
        guarded=True,
        names=("torch",),
    ),
    *(
        Subject(
            name=f"{kind} in Meta's layout",
            files=(files,),
            commands=(("convert", "safetensors", "meta", "--out=converted"),),
            mutators=mutators,
            result=results.files("converted/*"),
            count=150,
            guarded=guarded,
            names=("meta",),
        )
        for kind, files, mutators, guarded in (
            ("params.json", "meta/params.json", (damage_json, *TEXT, *FILES), False),
            ("a file", "meta/*.pth", (*BYTES, *hostile_pickles.MUTATORS, *FILES), True),
        )
    ),
    *(
        Subject(
            name=f"{kind} of a LoRA",
            files=(f"lora/{file}",),
            commands=(("convert", "merge", "--lora=lora", "--out=converted"),),
            mutators=mutators,
            result=results.files("converted/*"),
            count=150,
            names=("lora",),
        )
        for kind, file, mutators in (
            ("settings", "adapter_config.json", (damage_json, damage_json, *TEXT)),
            ("factors", "adapter_model.safetensors", (damage_header, *BYTES, *FILES)),
        )
    ),
    Subject(
        name="adapter of the original trainer",
        files=("adapter.pth",),
        commands=(ADAPTER,),
        mutators=(*BYTES, *hostile_pickles.MUTATORS, replace_file),
        result=results.files("converted/*.safetensors"),
        count=250,
        guarded=True,
    ),
    Subject(
        name="config.py",
        files=("config.py",),
        commands=(("cache", CONFIG),),
        mutators=(*TEXT, words.damage_config, words.damage_config, replace_file),
        result=results.nothing,
        count=250,
        names=("config",),
    ),
    Subject(
        name="flags",
        files=("config.py",),
        commands=(),
        mutators=(words.damage_flags,),
        result=results.nothing,
        count=450,
        names=("",),
    ),
    *(
        Subject(
            name=f"name of a {kind}",
            files=(target,),
            commands=(command,),
            mutators=(rename,),
            result=results.nothing,
            count=30,
            names=("",),
        )
        for kind, target, command in (
            ("song", "sounds/wav/song.wav", ("chat", "{target}", *CHAT[2:])),
            ("config", "config.py", ("cache", "--config={target}")),
            ("list of songs", "corpus/songs.jsonl", SURVEY),
            ("file of answers", "predictions.jsonl", PREDICTIONS),
            ("PyTorch file", "adapter.pth", ADAPTER),
        )
    ),
)
