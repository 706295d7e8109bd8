"""JPEG, JPEG-LS and JPEG 2000 streams: the size of their picture, and the stream without segments that can contain text.

A stream is a start marker, segments (marker, length, content), coded data, and an end marker (ITU-T T.81 B, T.87 C, T.800 A).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_END = 0xD9
_JPEG_SCAN, _JPEG_COMMENT = 0xDA, 0xFE
_TILE, _TILE_DATA, _J2K_COMMENT = 0x90, 0x93, 0x64
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xF7)
_SIZE = 0x51
_AFTER_SCAN = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")  # coded data contains no markers except restarts


def without_comments(stream: bytes) -> bytes:
    """The picture alone: no comments, no application data (EXIF), nothing after the end.

    Raises ValueError or IndexError for a stream without an end, or with a comment that cannot be cut out.
    """
    if stream[:2] == b"\xff\xd8":
        return b"\xff\xd8" + b"".join(_jpeg(stream)) + b"\xff\xd9"
    if stream[:2] == b"\xff\x4f":
        return b"\xff\x4f" + b"".join(_jpeg_2000(stream)) + b"\xff\xd9"
    return stream  # RLE


def picture_size(stream: bytes) -> tuple[int, int]:
    """Rows and columns from the stream itself. Raises ValueError or IndexError if it does not state them."""
    at = 2
    while True:
        at, marker, segment = _segment(stream, at)
        if stream[1] == 0xD8 and marker in _FRAMES:
            return int.from_bytes(segment[5:7], "big"), int.from_bytes(segment[7:9], "big")
        if stream[1] == 0x4F and marker == _SIZE:
            right, bottom, left, top = (int.from_bytes(segment[start : start + 4], "big") for start in (6, 10, 14, 18))
            return bottom - top, right - left
        if marker in (_END, _JPEG_SCAN, _TILE):
            raise ValueError("no size in the stream")
        at += len(segment)


def _jpeg(stream: bytes) -> Iterator[bytes]:
    at = 2
    while True:
        at, marker, segment = _segment(stream, at)
        if marker == _END:
            return
        is_adobe = marker == 0xEE and segment[4:9] == b"Adobe" and len(segment) == 16  # states the colour encoding
        if is_adobe or (marker != _JPEG_COMMENT and not 0xE0 <= marker <= 0xEF):
            yield segment
        at += len(segment)
        if marker == _JPEG_SCAN:
            after = _AFTER_SCAN.search(stream, at)
            if after is None:
                raise ValueError("a JPEG stream without an end")
            yield stream[at : after.start()]
            at = after.start()


def _jpeg_2000(stream: bytes) -> Iterator[bytes]:
    at = 2
    while True:
        at, marker, segment = _segment(stream, at)
        if marker == _END:
            return
        if marker == _TILE:
            length = int.from_bytes(segment[6:10], "big") or stream.rindex(b"\xff\xd9") - at
            _refuse_comment(stream, at + len(segment))
            yield stream[at : at + length]
            at += length
        else:
            if marker != _J2K_COMMENT:
                yield segment
            at += len(segment)


def _refuse_comment(stream: bytes, at: int) -> None:
    """Raises ValueError for a comment in a tile's header, whose length is stored elsewhere."""
    while True:
        at, marker, segment = _segment(stream, at)
        if marker == _TILE_DATA:
            return
        if marker == _J2K_COMMENT:
            raise ValueError("a comment inside a tile")
        at += len(segment)


def _segment(stream: bytes, at: int) -> tuple[int, int, bytes]:
    """The segment's start, its marker and its bytes."""
    while stream[at + 1] == 0xFF:  # fill bytes
        at += 1
    if stream[at] != 0xFF:
        raise ValueError("no marker where a segment starts")
    if stream[at + 1] in (_END, _TILE_DATA):
        return at, stream[at + 1], stream[at : at + 2]
    length = int.from_bytes(stream[at + 2 : at + 4], "big")
    if length < 2 or at + 2 + length > len(stream):
        raise ValueError("a segment beyond the end")
    return at, stream[at + 1], stream[at : at + 2 + length]


def has_many_scans(stream: bytes) -> bool:
    """Whether a JPEG has more scans than the ten or so that encoders write; decoding one scan visits the whole picture."""
    return stream.count(b"\xff\xda") > 100
