"""The notebooks of `examples/`: their cells run in order, and say what they promise."""

import json

import pytest
from helpers.programs import ROOT

pytestmark = pytest.mark.medium

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_was_stored_without_outputs(path):
    """Without Jupyter: all that it would add here are its packages."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    names: dict = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"] and cell["execution_count"] is None
            exec(compile("".join(cell["source"]), path.name, "exec"), names)
    if path.stem == "ask_about_music":
        assert len(names["answers"]) == 3 and all(names["answers"])
        assert [len(row) for row in names["table"]] == [3, 3, 3]
        assert names["features"].shape == (1, 192) and names["reply"]
