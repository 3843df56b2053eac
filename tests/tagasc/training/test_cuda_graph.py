import gc
from contextlib import contextmanager, nullcontext

import pytest
import torch

from tagasc.training import cuda_graph
from tagasc.training.cuda_graph import CudaGraph


@pytest.fixture
def recorder(monkeypatch):
    """CUDA graphs in Python: what is called while one records runs when it is replayed."""

    class Graph:
        calls = ()

        def replay(self):
            for call in self.calls:
                call()

    class Recorder:
        recording: Graph | None = None

        def do(self, call):
            if self.recording is None:
                call()
            else:
                self.recording.calls += (call,)

        @contextmanager
        def graph(self, graph, stream, capture_error_mode):
            assert capture_error_mode == "thread_local"
            assert stream is cuda_graph._side_stream()  # none that anything else may be given
            assert not gc.isenabled()  # no other graph may die meanwhile
            self.recording = graph
            yield
            self.recording = None

    class Stream:
        def wait_stream(self, other):
            assert isinstance(other, Stream)

    cuda_graph._side_stream.cache_clear()
    recorder = Recorder()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recorder.graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    yield recorder
    cuda_graph._side_stream.cache_clear()


def test_every_call_does_the_work_once(recorder):
    seen, passes = [], []

    def work():
        passes.append(recorder.recording is not None)
        recorder.do(lambda: seen.append(len(seen)))

    captured = CudaGraph(plain_calls=3)
    for count in range(1, 9):
        captured(work)
        assert len(seen) == count
    assert passes == [False, False, False, True]  # three plain calls, one that records; the others replay
    assert gc.isenabled()
