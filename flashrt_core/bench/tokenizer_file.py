"""A SentencePiece model of single characters, written byte by byte: lets a model of random weights have a real prompt.

Format: sentencepiece_model.proto (ModelProto: pieces 1, trainer_spec 2, normalizer_spec 3).
"""

from __future__ import annotations

import struct

_NORMAL, _UNKNOWN, _CONTROL, _UNUSED = 1, 2, 3, 5  # ModelProto.SentencePiece.Type
_CHAR_MODEL = 4  # TrainerSpec.ModelType
SPECIAL = ("<pad>", "</s>", "<s>", "<unk>")  # the names that the format gives these four by default
SPACE = "\u2581"  # how SentencePiece writes a space


def character_tokenizer(pieces: int) -> bytes:
    """A .model file with ids pad 0, eos 1, bos 2, unk 3, newline, space and printable ASCII, then unused ones up to `pieces`."""
    characters = ["\n", SPACE, *map(chr, range(33, 127))]
    rows = [(text, _UNKNOWN if text == "<unk>" else _CONTROL) for text in SPECIAL]
    rows += [(text, _NORMAL) for text in characters]
    if pieces < len(rows):
        raise ValueError(f"{len(rows)} pieces are the least, not {pieces}")
    rows += [(f"<unused{i}>", _UNUSED) for i in range(pieces - len(rows))]
    trainer = _number(3, _CHAR_MODEL) + _number(40, 3) + _number(41, 2) + _number(42, 1) + _number(43, 0)
    normalizer = _text(1, "identity") + _number(3, 0) + _number(4, 0) + _number(5, 1)
    return b"".join(_block(1, _text(1, text) + b"\x15" + struct.pack("<f", 0.0) + _number(3, kind)) for text, kind in rows) + (
        _block(2, trainer) + _block(3, normalizer)
    )


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _block(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _block(field, text.encode())
