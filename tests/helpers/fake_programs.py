"""Fake programs for a folder of the PATH."""

from pathlib import Path

from helpers.small_run import ROOT

LAUNCH = ROOT / "launch"


def executable(path: Path, text: str) -> None:
    """Writes an executable script."""
    path.write_text(text)
    path.chmod(0o755)
