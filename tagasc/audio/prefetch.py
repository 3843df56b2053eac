"""Brings values from host memory to a device while that is busy with those before."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor


class DeviceBuffer:
    """A buffer on the device that is filled, used, and filled again.

    On a GPU it is filled on a stream beside the computation's; two events keep the streams from overtaking each other.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, staged: bool) -> None:
        """Args: of the buffer; ``staged`` if what fills it is not page-locked, and must be copied to where it is."""
        self._gpu = device.type == "cuda"
        with torch.inference_mode(False):  # the thread that fills them is not in that mode, whoever asks for batches
            self.values = torch.empty(shape, dtype=dtype, device=device)
            self._staging = torch.empty(shape, dtype=dtype, pin_memory=self._gpu) if staged else None
        if self._gpu:
            self._stream, self._filled, self._used = _fill_stream(device), torch.cuda.Event(), torch.cuda.Event()
            self._stream.wait_stream(torch.cuda.current_stream(device))  # the buffer's memory may yet be in use there

    def fill(self, work: Callable[[Tensor], None]) -> "DeviceBuffer":
        """Let ``work`` write into the buffer; returns before it is there."""
        if not self._gpu:
            work(self.values)
            return self
        self._filled.synchronize()  # the copy before has left the staging buffer
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._used)
            if self._staging is None:
                work(self.values)
            else:
                work(self._staging)
                self.values.copy_(self._staging, non_blocking=True)
            self._filled.record(self._stream)
        return self

    def wait(self) -> Tensor:
        """The buffer, for work on the current stream from here on."""
        if self._gpu:
            torch.cuda.current_stream(self.values.device).wait_event(self._filled)
        return self.values

    def release(self) -> None:
        """Work on the current stream so far was the last that reads the buffer."""
        if self._gpu:
            self._used.record(torch.cuda.current_stream(self.values.device))


@cache
def _fill_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all slots: of streams that are asked for again and again, torch gives out the same ones in turn.

    A new one could so be that on which a CUDA graph is being recorded, which a copy from here would spoil.
    """
    return torch.cuda.Stream(device)


def prefetch(fill: Callable[[int, Tensor], None], count: int, buffers: Sequence[DeviceBuffer]) -> Iterator[Tensor]:
    """Yield ``count`` batches in order, each valid until the next is asked for.

    Args:
        fill: writes the batch of that number into a buffer; called in a thread, one batch after another.
        count: number of batches.
        buffers: their number is that of the batches under way.
    """
    with ThreadPoolExecutor(1) as thread:

        def begin(number: int, buffer: DeviceBuffer) -> None:
            under_way.append(thread.submit(buffer.fill, lambda out: fill(number, out)))

        under_way: deque = deque()
        for number, buffer in enumerate(buffers[:count]):
            begin(number, buffer)
        for number in range(len(under_way), count + len(under_way)):
            buffer = under_way.popleft().result()
            yield buffer.wait()
            buffer.release()
            if number < count:
                begin(number, buffer)
