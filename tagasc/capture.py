"""CUDA graphs: work on a GPU that is recorded once and then replayed with a single launch."""

from collections.abc import Callable

import torch


class Captured:
    """Calls ``work`` plainly a few times, then records it, and from then on replays it.

    The plain calls compile, choose algorithms and allocate; they are calls like any other, so nothing is to be undone.
    What is recorded must read what changes from tensors that stay where they are, and must not wait for the CPU.
    """

    def __init__(self, work: Callable[[], None], plain_calls: int = 3) -> None:
        self._work, self._plain_calls = work, plain_calls
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream: torch.cuda.Stream | None = None

    def __call__(self) -> None:
        """Do the work."""
        if self._plain_calls > 0:
            self._plain_calls -= 1
            self._plain()
            return
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            # Other threads, such as one that prefetches, go on meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._work()
        self._graph.replay()

    def _plain(self) -> None:
        """On a stream of its own, so that nothing of it ties the recording to the default stream."""
        self._stream = self._stream or torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._work()
        torch.cuda.current_stream().wait_stream(self._stream)
