"""Resampling in NumPy: a windowed sinc, applied as one matrix product per block, of streams of any length.

The filter is a sinc of 64 zero crossings on either side under a Kaiser window (beta 14.77), cut off at 0.9476 of the
lower of both Nyquist frequencies. These are the values known as *kaiser best*: the pass band ends at about 0.9 of that
frequency, aliases lie more than 100 dB down. The recipe itself never changes the rate of a scene clip, so there is no
other filter to agree with.
"""

import math
from functools import lru_cache

import numpy as np

_CROSSINGS, _BETA, _CUTOFF = 64, 14.769656459379492, 0.9475937167399596
_MOST_WEIGHTS = 2**22  # of a dense matrix; ratios such as 44099:48000 would need a huge one
_MOST_VALUES = 2**21  # of one block of input rows


class Resampler:
    """Resamples one stream, which arrives in blocks; L output samples come from M input samples."""

    def __init__(self, rate: int, wanted: int) -> None:
        """Prepare for two rates in Hz."""
        divisor = math.gcd(rate, wanted)
        self._up, self._down = wanted // divisor, rate // divisor
        self._width = math.ceil(_CROSSINGS * max(1.0, self._down / self._up) / _CUTOFF)
        self._row = self._down + 2 * self._width  # input samples that a row of L output samples depends on
        self._buffer: np.ndarray | None = None
        self._taken = self._given = 0

    def length(self, frames: int) -> int:
        """Return the number of output samples of a stream of ``frames`` samples."""
        return -(-frames * self._up // self._down)

    def feed(self, block: np.ndarray) -> np.ndarray:
        """Take the next block, float32 (frames, channels); return the output that is complete, likewise."""
        if self._up == self._down:
            self._buffer = block[:0]
            return block
        if self._buffer is None:
            self._buffer = np.zeros((self._width, block.shape[1]), np.float32)
        self._taken += len(block)
        self._buffer = np.concatenate([self._buffer, block])
        rows = max(0, (len(self._buffer) - self._row) // self._down + 1)
        output = self._rows(rows)
        self._given += len(output)
        return output

    def flush(self) -> np.ndarray:
        """Return the rest of the output, as if silence followed."""
        if self._buffer is None or self._up == self._down:
            return np.zeros((0, 1), np.float32) if self._buffer is None else self._buffer
        remaining = self.length(self._taken) - self._given
        rows = -(-remaining // self._up)
        lacking = rows * self._down + 2 * self._width - len(self._buffer)
        silence = np.zeros((max(0, lacking), self._buffer.shape[1]), np.float32)
        self._buffer = np.concatenate([self._buffer, silence])
        return self._rows(rows)[:remaining]

    def _rows(self, count: int) -> np.ndarray:
        """Compute the next ``count`` rows of output, and drop the input that no later row needs."""
        used, channels = self._buffer, self._buffer.shape[1]
        output = np.empty((count, self._up, channels), np.float32)
        step = max(1, _MOST_VALUES // self._row)
        for start in range(0, count, step):
            rows = min(step, count - start)
            first = start * self._down
            part = used[first : first + (rows - 1) * self._down + self._row]
            for channel in range(channels):
                windows = np.lib.stride_tricks.sliding_window_view(part[:, channel], self._row)[:: self._down]
                output[start : start + rows, :, channel] = self._product(windows)
        self._buffer = used[count * self._down :]
        return output.reshape(count * self._up, channels)

    def _product(self, windows: np.ndarray) -> np.ndarray:
        starts, weights = _filters(self._up, self._down, self._width)
        if self._row * self._up <= _MOST_WEIGHTS:
            return np.ascontiguousarray(windows) @ _dense(self._up, self._down, self._width)  # or BLAS is not used
        taps, step = np.arange(weights.shape[1]), max(1, _MOST_VALUES // weights.shape[1])
        output = np.empty((len(windows), self._up), np.float32)
        for first in range(0, self._up, step):
            part = slice(first, first + step)
            positions = starts[part, None] + taps
            for row, window in enumerate(windows):
                output[row, part] = np.einsum("ij,ij->i", window[positions], weights[part])
        return output


@lru_cache(4)
def _filters(up: int, down: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each of the L outputs of a row, the first input sample it depends on, and the filter's weights."""
    times = np.arange(up) * down / up + width  # in input samples, within a row
    starts = np.floor(times).astype(np.int64) - width + 1
    offsets = starts[:, None] + np.arange(2 * width) - times[:, None]
    cutoff = _CUTOFF * min(1.0, up / down)
    inside = np.clip(1 - (offsets / width) ** 2, 0, None)
    window = np.i0(_BETA * np.sqrt(inside)) / np.i0(_BETA) * (np.abs(offsets) <= width)
    return starts, (cutoff * np.sinc(cutoff * offsets) * window).astype(np.float32)


@lru_cache(4)
def _dense(up: int, down: int, width: int) -> np.ndarray:
    """Return the weights as a matrix (input samples of a row, L)."""
    starts, weights = _filters(up, down, width)
    matrix = np.zeros((down + 2 * width, up), np.float32)
    for output, start in enumerate(starts):
        matrix[start : start + weights.shape[1], output] = weights[output]
    return matrix
