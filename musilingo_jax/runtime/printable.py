"""Makes text that others have written safe to print on a terminal."""

import unicodedata

# Control characters, which include escape sequences, and halves of surrogate pairs,
# which no encoding has.
_UNSAFE = ("Cc", "Cs")


def printable(text: str) -> str:
    r"""The text with unsafe characters as `\x1b` or `\udcff`, as `ls` and git do.

    Names of files, tensors and clips come from downloads. Line ends and tabs are kept.
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _UNSAFE and character not in "\n\t"
        else character
        for character in text
    )
