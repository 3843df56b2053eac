"""CUDA graphs: work on a GPU that is recorded once and then replayed with a single launch."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch


class CudaGraph:
    """Does the same work again and again: plainly a few times, then it records it, and from then on replays it.

    The plain calls compile, choose algorithms and allocate; they are calls like any other, so nothing is to be undone.
    What is recorded must read what changes from tensors that stay where they are, and must not wait for the CPU.
    """

    def __init__(self, plain_calls: int = 3) -> None:
        self._plain_calls = plain_calls
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, work: Callable[[], None]) -> None:
        """Do ``work``, the same in every call; it is not kept, so that a finished training leaves no memory taken."""
        if self._plain_calls > 0:
            self._plain_calls -= 1
            _run_eagerly(work)
            return
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with _capturing(self._graph):
                work()
        self._graph.replay()


@contextmanager
def _capturing(graph: torch.cuda.CUDAGraph) -> Iterator[None]:
    """Record in ``graph``; a recording that fails leaves the current stream as it was, which torch does not."""
    restored = torch.cuda.stream(torch.cuda.current_stream())
    # Other threads, such as one that prefetches, go on meanwhile.
    recorded = torch.cuda.graph(graph, stream=_side_stream(), capture_error_mode="thread_local")
    with _no_collection(), restored, recorded:
        yield


def _run_eagerly(work: Callable[[], None]) -> None:
    """On a stream of its own, so that nothing of it ties the recording to the default stream."""
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
    """Another training's graph, destroyed by the garbage collector while one is recorded, would spoil the recording."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
