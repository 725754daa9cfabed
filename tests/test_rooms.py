"""The rooms of the package are ordered, and imports run downward only.

    door     train.py  evaluate.py  generate.py  chat.py  cache.py  annotate.py
             caption.py  instruct.py  search.py  benchmark.py  command.py
    wing     plan/  convert/  recipes/  serve/  web/
    room     the rest, lowest first in `ROOMS`

A room imports rooms below it and its own files. A door imports rooms. A wing imports
rooms and doors. Nothing imports a wing, and no door imports another.
"""

import ast
import graphlib
from pathlib import Path

import pytest

import musilingo_jax

PACKAGE = Path(musilingo_jax.__file__).parent
ROOMS = (
    "runtime",
    "jobs",
    "models",
    "pretrained",
    "corpora",
    "audio",
    "annotation",
    "answering",
    "training",
    "evaluation",
    "captioning",
    "benchmarks",
    "instruction",
    "searching",
)
DOORS = ("train", "evaluate", "generate", "chat", "cache", "annotate", "caption")
DOORS += ("instruct", "search", "benchmark", "command")
WINGS = ("plan", "convert", "recipes", "serve", "web")
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    """musilingo_jax/audio/cache/fill.py → "audio.cache.fill"; a package → its name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path) for path in FILES}


def imports_of(path):
    """The modules of this package that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, module = name.partition(".")
            if package == "musilingo_jax":
                # `from module import function` names the module, too.
                while module and module not in MODULES:
                    module = module.rpartition(".")[0]
                if module:
                    found.add(module)
    return found - {name_of(path)}


def may_import(importer, imported):
    """Whether one top-level file or folder may import from another."""
    if importer == imported or imported in ("", "assets"):
        return True
    if imported in WINGS:
        return False
    if imported in DOORS:
        return importer in WINGS
    if importer in ROOMS:
        return ROOMS.index(imported) < ROOMS.index(importer)
    return True


def test_every_folder_and_file_is_a_room_a_door_or_a_wing():
    top = {name.split(".")[0] for name in MODULES} - {""}
    assert top == {*ROOMS, *DOORS, *WINGS}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_import_climbs(path):
    importer = name_of(path).split(".")[0]
    climbing = {
        imported
        for imported in imports_of(path)
        if not may_import(importer, imported.split(".")[0])
    }
    assert not climbing


def test_there_is_no_circle():
    graph = {name_of(path): imports_of(path) for path in FILES}
    tuple(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("audio", "models", True),
        ("models", "audio", False),
        ("training", "evaluation", False),
        ("training", "train", False),
        ("chat", "generate", False),
        ("chat", "answering", True),
        ("recipes", "train", True),
        ("train", "plan", False),
    ],
)
def test_the_order_is_what_the_picture_says(importer, imported, allowed):
    assert may_import(importer, imported) == allowed
