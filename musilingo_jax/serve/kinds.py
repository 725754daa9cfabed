"""What a sound is, by its content. Names and labels of clients decide nothing.

A server decodes files of strangers, so it takes the four formats of the protocol and no
others: the decoders of the rest (`audio/formats`) are not reached.
"""

from musilingo_jax.audio.formats.pieces import after_id3

# Bytes of a file that are looked at, after a tag.
HEAD_BYTES = 64
KINDS = "WAV, MP3, FLAC or Ogg"


def kind_of(sound: bytes) -> str | None:
    """The kind: "wav", "mp3", "flac" or "ogg"; None for anything else."""
    head = sound[:HEAD_BYTES]
    if head.startswith(b"ID3"):  # The tag may precede AAC and FLAC, too.
        start = after_id3(head)
        head = sound[start : start + HEAD_BYTES]
        if not head or not any(head):  # Padding, which decoders skip.
            return "mp3"
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head.startswith(b"fLaC"):
        return "flac"
    if head.startswith(b"OggS"):
        return "ogg"
    return "mp3" if _is_mpeg(head) else None


def _is_mpeg(head: bytes) -> bool:
    """Whether a frame of MPEG audio begins: 11 bits set, a layer, a rate.

    AAC has the same beginning and no layer.
    """
    return (
        len(head) >= 4
        and head[0] == 0xFF
        and head[1] & 0xE0 == 0xE0
        and head[1] & 0x18 != 0x08
        and head[1] & 0x06 != 0
        and head[2] & 0xF0 != 0xF0
        and head[2] & 0x0C != 0x0C
    )
