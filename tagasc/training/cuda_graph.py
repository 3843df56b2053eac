"""CUDA graphs: GPU work that is captured once and then replayed with a single launch."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch


class CudaGraph:
    """Runs a function eagerly a few times, then captures it as a CUDA graph and replays that.

    The eager calls compile, choose algorithms and allocate memory; each is a full call of the function. Captured work
    must read its inputs from fixed tensors and must not synchronise with the CPU.
    """

    def __init__(self, eager_calls: int = 3) -> None:
        self._eager_calls = eager_calls
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, work: Callable[[], None]) -> None:
        """Do ``work``, the same in every call. It is not stored, so a finished training frees its memory."""
        if self._eager_calls > 0:
            self._eager_calls -= 1
            _run_eagerly(work)
            return
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            with _capturing(graph):
                work()
            self._graph = graph  # only if the capture has succeeded
        self._graph.replay()

    @property
    def captures(self) -> bool:
        """Whether the next call is captured or replayed, not eager."""
        return self._eager_calls == 0


@contextmanager
def _capturing(graph: torch.cuda.CUDAGraph) -> Iterator[None]:
    """Capture into ``graph``; unlike torch, restore the current stream if the capture fails."""
    restored = torch.cuda.stream(torch.cuda.current_stream())
    # Other threads, such as the prefetching one, continue meanwhile.
    capture = torch.cuda.graph(graph, stream=_side_stream(), capture_error_mode="thread_local")
    with _no_collection(), restored, capture:
        yield


def _run_eagerly(work: Callable[[], None]) -> None:
    """Do ``work`` on the side stream, so that the capture does not depend on the default stream."""
    stream = _side_stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)


@cache
def _side_stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Suspend garbage collection, which could destroy another graph and so break the capture."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
