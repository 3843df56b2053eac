"""Prefetches batches from host memory to a device while earlier batches are in use."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

from tagasc.utils.device import page_locked


class DeviceBuffer:
    """A reusable buffer on the device.

    On a GPU it is filled on a separate stream; two events synchronise that stream with the computation's.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, staged: bool) -> None:
        """Allocate the buffer.

        Args:
            shape: shape of the values.
            dtype: type of the values.
            device: device of the buffer.
            staged: whether its source is pageable memory, which needs a pinned staging buffer.
        """
        self._gpu = device.type == "cuda"
        with torch.inference_mode(False):  # the filling thread is never in inference mode
            self.values = torch.empty(shape, dtype=dtype, device=device)
            self._staging = None
            if staged:
                self._staging = torch.empty(shape, dtype=dtype)
                self._staging = page_locked(self._staging) if self._gpu else self._staging
        if self._gpu:
            self._stream, self._filled, self._used = _fill_stream(device), torch.cuda.Event(), torch.cuda.Event()
            self._stream.wait_stream(torch.cuda.current_stream(device))  # the buffer's memory may still be in use there
            self.values.record_stream(self._stream)  # nor is it used again before a copy that an error left behind ends

    def fill(self, work: Callable[[Tensor], None]) -> "DeviceBuffer":
        """Let ``work`` write into the buffer; on a GPU, return before the copy is finished."""
        if not self._gpu:
            work(self.values)
            return self
        self._filled.synchronize()  # the previous copy has left the staging buffer
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
        """Return the values, for later work on the current stream."""
        if self._gpu:
            torch.cuda.current_stream(self.values.device).wait_event(self._filled)
        return self.values

    def release(self) -> None:
        """Allow the buffer to be filled again after the work on the current stream so far."""
        if self._gpu:
            self._used.record(torch.cuda.current_stream(self.values.device))


@cache
def _fill_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream of all buffers.

    torch reuses streams round-robin; a fresh one might be under graph capture, which a copy would break.
    """
    return torch.cuda.Stream(device)


def prefetch(fill: Callable[[int, Tensor], None], count: int, buffers: Sequence[DeviceBuffer]) -> Iterator[Tensor]:
    """Yield ``count`` batches in order, each valid until the next one is requested.

    Args:
        fill: function that writes the batch with a given number into a buffer; called in one thread, in order.
        count: number of batches.
        buffers: buffers, one per batch in flight.
    """
    with ThreadPoolExecutor(1) as thread:

        def begin(number: int, buffer: DeviceBuffer) -> None:
            in_flight.append(thread.submit(buffer.fill, lambda out: fill(number, out)))

        in_flight: deque = deque()
        for number, buffer in enumerate(buffers[:count]):
            begin(number, buffer)
        for number in range(len(in_flight), count + len(in_flight)):
            buffer = in_flight.popleft().result()
            yield buffer.wait()
            buffer.release()
            if number < count:
                begin(number, buffer)
