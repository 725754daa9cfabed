"""Damage of what people type: command lines, and configs in Python."""

import random
import re

from campaign.attempt import Attempt
from campaign.json_mutations import ESCAPE

COMMANDS = (
    (
        "chat",
        "sounds/wav/song.wav",
        "--run=run",
        "--ask=Why?",
        "--start=0",
        "--seconds=1",
    ),
    ("evaluate", "--predictions=predictions.jsonl", "--json=s.json", "--out=report"),
    ("cache", "inspect", "cache"),
    ("cache", "export", "cache", "--out=x.npz"),
    ("cache", "--config=config.py", "--task=0", "--tasks=1"),
    ("convert", "--inspect", "encoder", "--json"),
    ("convert", "export", "run", "--out=exported"),
    ("convert", "adapter", "adapter.pth", "--out=converted", "--window_frames=10"),
    (
        "corpora.build",
        "own_songs",
        "--source=corpus/songs.jsonl",
        "--out=x",
        "--inspect",
    ),
    ("generate", "--config=config.py", "--out=a.jsonl", "--split=train"),
    ("train", "--config=config.py", "--config.seed=0", "--config.run=run"),
    ("plan", "--config=config.py", "--topology=v5e-8", "--stage=stage2"),
)
_VALUES = (
    "",
    " ",
    "0",
    "-1",
    "1e999",
    "nan",
    "inf",
    "9" * 30,
    "0.5",
    "x",
    "None",
    "[]",
    "()",
    "{}",
    "True",
    ESCAPE,
    "\udcff",
    "a\nerror: b",
    "nowhere/x",
    "run",
    "config.py",
    "/dev/null",
    "/dev/full",
    "gs://nowhere/x",
    "../x",
    "$(touch canary)",
    "é" * 300,
    "%s",
)
_FLAGS = (
    "--help",
    "--nohelp",
    "--config",
    "--config.seed",
    "--config.nothing=1",
    "--config.features.batch_size=0",
    "--config.mesh.data=7",
    "--adapter=run",
    "--seconds=",
    "--distributed",
    "--process=1",
    "--",
    "-",
    "-x",
    "--" + ESCAPE,
    "--=",
    "---",
)
_CODE = (
    "raise ValueError('campaign')",
    "import sys; sys.exit(3)",
    "print('hello')",
    "1 / 0",
    "import nothing_of_this_name",
    "return None",
    # Not KeyboardInterrupt, which is what Ctrl-C raises in a config that takes long.
    "raise GeneratorExit",
    "def get_config(): pass",
    "get_config = 3",
    "NUMBERS = {}",
    "'unfinished",
    "\t  x = 1",
    f"raise RuntimeError({ESCAPE!r})",
    "class E(Exception):\n    def __str__(self): return 1 / 0\nraise E",
    "raise RecursionError",
    "raise MemoryError('campaign')",
)


def damage_flags(rng: random.Random, attempt: Attempt) -> str:
    """A command line with a few words changed, dropped, repeated or added."""
    program, *words = rng.choice(COMMANDS)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(words) + 1)
        kind = rng.choice(("value", "value", "value", "drop", "repeat", "add", "move"))
        if at == len(words) or kind == "add":
            words.insert(at, rng.choice(_FLAGS))
        elif kind == "value":
            flag, equals, _ = words[at].partition("=")
            value = rng.choice(_VALUES)
            words[at] = flag + equals + value if equals else value
        elif kind == "drop":
            del words[at]
        elif kind == "repeat":
            words.insert(at, words[at])
        else:
            words.insert(rng.randrange(len(words)), words.pop(at))
    attempt.commands = [(program, *words)]
    return f"{program} {words}"


def damage_config(rng: random.Random, attempt: Attempt) -> str:
    """A value or a line of a config in Python."""
    text = attempt.path.read_text("utf-8")
    kind = rng.choice(("value", "value", "value", "remove", "line", "code", "last"))
    values = list(
        re.finditer(r"(?<=: )(?:[\d.e+-]+|'[^'\n]*'|True|False)(?=[,}])", text)
    )
    found = rng.choice(values)
    match kind:
        case "value":
            other = rng.choice(
                ("-1", "0", "1.5", "'x'", "None", "[]", "{}", "1e999", "10**30", "True")
            )
            how = f"{text[found.start() - 20 : found.end()]!r} → {other}"
            text = text[: found.start()] + other + text[found.end() :]
        case "remove":
            keys = list(re.finditer(r" '\w+': (?:[^{}\n]*|{[^{}]*}),\n", text))
            found = rng.choice(keys)
            how = f"without {found[0][:40]!r}"
            text = text[: found.start()] + "\n" + text[found.end() :]
        case "line":
            lines = text.splitlines(keepends=True)
            at = rng.randrange(len(lines))
            how = f"without line {at + 1}"
            del lines[at]
            text = "".join(lines)
        case "code" | "last":
            code = rng.choice(_CODE)
            how = f"{code!r}, {'first' if kind == 'code' else 'in get_config'}"
            if kind == "code":
                text = f"{code}\n{text}"
            else:
                lines = "".join(f"    {line}\n" for line in code.splitlines())
                text = text.replace(
                    "    return ConfigDict", f"{lines}    return ConfigDict"
                )
    attempt.path.write_text(text, "utf-8")
    return f"{kind}: {how}"
