"""Opens audio files so that they are read to their real end, also where the header does not promise the length.

An MP3 has no length of its own. libsndfile estimates it from the bit rate of the first frame, or takes it from a tag
that the encoder may not have filled in, and then reads no further. If decoding gives another length, the file is read
from a pipe, where libsndfile estimates nothing, and without that tag.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import numpy as np
import soundfile

from tagasc.utils.errors import UserError

_ESTIMATED = ("MP3",)  # formats whose length may be an estimate
_UNKNOWN = 2**62  # frames; libsndfile says 2^63 - 1 if a FLAC was streamed, and cannot read its end
_ADDED = 4  # blocks that an encoder adds at the ends, at most, and a decoder drops where the tag says so
_TAG, _TAG_WITHIN = re.compile(rb"Xing|Info|VBRI"), 2048  # bytes after an ID3 tag
_BLOCK = 2**15  # frames


@contextmanager
def open_audio(path: str | Path) -> Iterator[tuple[soundfile.SoundFile, int]]:
    """Open an audio file for reading; yield it, and its length in frames.

    Raises:
        UserError: the file is missing or not audio, or does not say how long it is; also if it turns out while reading.
    """
    try:
        with soundfile.SoundFile(path) as file:
            if file.frames >= _UNKNOWN:
                raise UserError(f"{path} does not say how long it is; write it again, for instance as WAV")
            length = _decoded_frames(path) if file.format in _ESTIMATED else file.frames
            added = _ADDED * (1152 if file.samplerate >= 32000 else 576)
            if file.format not in _ESTIMATED or length - added <= file.frames <= length:
                yield file, file.frames
                return
        with _piped(path) as file:
            yield file, length
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        if not Path(path).exists():
            raise UserError(f"{path} does not exist; run stages 0 and 1 again") from None
        raise UserError(f"{path} cannot be read as audio ({error}); download it again or replace it") from None


def skip(file: soundfile.SoundFile, frames: int) -> None:
    """Move forward by ``frames``; a pipe can only be read."""
    if file.seekable():
        file.seek(frames)
        return
    while frames > 0 and (read := len(file.read(min(frames, _BLOCK)))):
        frames -= read


def _decoded_frames(path: str | Path) -> int:
    """Return the length that decoding gives, in frames."""
    with _piped(path) as file:
        buffer = np.empty((_BLOCK, file.channels), np.float32)
        total = 0
        while read := len(file.read(out=buffer)):
            total += read
        return total


@contextmanager
def _piped(path: str | Path) -> Iterator[soundfile.SoundFile]:
    """Open an MP3 through a pipe, without the tag that may give a wrong length."""
    reading, writing = os.pipe()
    feeder = Thread(target=_feed, args=(path, writing), daemon=True)
    feeder.start()
    try:
        with soundfile.SoundFile(reading, closefd=False) as file:
            yield file
    finally:
        os.close(reading)  # ends the feeder, should it still write
        feeder.join()


def _feed(path: str | Path, writing: int) -> None:
    with suppress(BrokenPipeError), open(writing, "wb") as pipe, open(path, "rb") as file:
        start = file.read(10)
        id3 = (
            sum(byte << shift for byte, shift in zip(start[6:], (21, 14, 7, 0), strict=True))
            if start[:3] == b"ID3"
            else 0
        )
        pipe.write(start + file.read(id3))
        pipe.write(_TAG.sub(bytes(4), file.read(_TAG_WITHIN), count=1))
        shutil.copyfileobj(file, pipe)
