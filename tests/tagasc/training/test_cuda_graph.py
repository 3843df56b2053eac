import gc
from contextlib import contextmanager, nullcontext

import pytest
import torch

from tagasc.training import cuda_graph
from tagasc.training.cuda_graph import CudaGraph


@pytest.fixture
def capturer(monkeypatch):
    """A model of CUDA graphs in Python: calls during a capture run when the graph is replayed."""

    class Graph:
        calls = ()

        def replay(self):
            for call in self.calls:
                call()

    class Capturer:
        capturing: Graph | None = None

        def do(self, call):
            if self.capturing is None:
                call()
            else:
                self.capturing.calls += (call,)

        @contextmanager
        def graph(self, graph, stream, capture_error_mode):
            assert capture_error_mode == "thread_local"
            assert stream is cuda_graph._side_stream()  # not a stream that other code may get
            assert not gc.isenabled()  # no other graph may be destroyed during the capture
            self.capturing = graph
            yield
            self.capturing = None

    class Stream:
        def wait_stream(self, other):
            assert isinstance(other, Stream)

    cuda_graph._side_stream.cache_clear()
    capturer = Capturer()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capturer.graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    yield capturer
    cuda_graph._side_stream.cache_clear()


def test_every_call_does_the_work_once(capturer):
    done, captures = [], []

    def work():
        captures.append(capturer.capturing is not None)
        capturer.do(lambda: done.append(len(done)))

    graph = CudaGraph(eager_calls=3)
    for count in range(1, 9):
        graph(work)
        assert len(done) == count
    assert captures == [False, False, False, True]  # three eager calls and a capture; later calls replay
    assert gc.isenabled()
