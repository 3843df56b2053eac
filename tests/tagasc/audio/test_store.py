from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tagasc.audio import store as module
from tagasc.audio.prefetch import DeviceBuffer, _fill_stream, prefetch
from tagasc.audio.store import AudioStore, JoinedStore, _pinned
from tagasc.utils.device import page_locked, to_device
from tagasc.utils.errors import UserError
from tagasc.utils.log import log
from tests.helpers import write_packed

CPU = torch.device("cpu")


def buffers(count):
    return [DeviceBuffer((2, 3), torch.float32, CPU, staged=False) for _ in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_prefetched_batches_are_complete_and_in_order(count):
    batches = [batch.clone() for batch in prefetch(lambda number, out: out.fill_(number), count, buffers(3))]
    assert [batch.unique().tolist() for batch in batches] == [[number] for number in range(count)]


def test_a_batch_in_use_is_not_overwritten():
    for number, batch in enumerate(prefetch(lambda number, out: out.fill_(number), 20, buffers(2))):
        for _ in range(3):
            assert (batch == number).all()


def test_prefetching_works_in_inference_mode():
    with torch.inference_mode():
        staged = [DeviceBuffer((2, 3), torch.float32, CPU, staged=True) for _ in range(2)]
        for kind in (buffers(2), staged):
            batches = [batch.clone() for batch in prefetch(lambda number, out: out.fill_(number), 5, kind)]
            assert len(batches) == 5


def test_an_error_while_prefetching_reaches_the_caller():
    def fill(number, out):
        if number == 4:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(prefetch(fill, 9, buffers(3)))


def test_all_buffers_are_filled_on_one_stream(monkeypatch):
    """torch reuses its 32 streams round-robin, so a new one may be under graph capture."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    created, empty = [], torch.empty
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, **_: empty(shape, dtype=dtype))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: created.append(device) or stream)
    monkeypatch.setattr(torch.cuda, "Event", SimpleNamespace)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    used = []
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: used.append(stream))
    _fill_stream.cache_clear()
    for staged in (True, False):
        assert all(DeviceBuffer((2, 3), torch.int16, torch.device("cuda"), staged)._stream is stream for _ in range(40))
    assert created == [torch.device("cuda")]
    assert used == [stream] * 80  # the allocator waits for a copy that an error left behind
    _fill_stream.cache_clear()


def test_to_device_keeps_the_values():
    values = torch.arange(6).reshape(2, 3)
    assert torch.equal(to_device(values, CPU), values)


def test_copies_to_a_gpu_are_pinned_and_asynchronous(monkeypatch):
    """A copy from pageable memory would synchronise."""
    calls = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append("pinned") or self)
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, device, non_blocking=False: calls.append((device, non_blocking))
    )
    to_device(torch.zeros(3), torch.device("cuda"))
    assert calls == ["pinned", (torch.device("cuda"), True)]


def test_memory_that_cannot_be_pinned_is_copied_nevertheless(monkeypatch):
    """Containers and ``ulimit -l`` refuse it. Said once; a batch comes from pageable memory then."""

    def refuse(values):
        raise RuntimeError("CUDA error: operation not\nsupported")

    said = []
    monkeypatch.setattr(log, "warning", lambda form, *values: said.append(form % values))
    monkeypatch.setattr(torch.Tensor, "pin_memory", refuse)
    values = torch.arange(6)
    assert page_locked(values) is values
    assert page_locked(values) is values
    assert said == ["memory cannot be pinned, so copies to the GPU wait: CUDA error: operation not supported"]


@pytest.fixture
def one_gpu(monkeypatch):
    """A GPU on which audio arrives on the CPU, with much free memory."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 10**9))
    monkeypatch.setattr(module, "_pinned", lambda samples: torch.from_numpy(samples))
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *device, **how: to(self, "cpu"))
    monkeypatch.setattr(log, "propagate", True)
    return torch.device("cuda")


def refuse(message):
    def fail(*_, **__):
        raise RuntimeError(message)

    return fail


@pytest.mark.parametrize(("refused", "storage"), [((), "gpu"), (("gpu",), "pinned"), (("gpu", "pinned"), "disk")])
def test_audio_goes_where_the_system_allows(monkeypatch, caplog, tmp_path, one_gpu, refused, storage):
    """GPU memory may be gone when it is needed, and pinning refused, though there is room for both."""
    packed = write_packed(tmp_path / "p", [np.arange(9).reshape(9, 1)])
    to = torch.Tensor.to
    full = torch.OutOfMemoryError("CUDA out of memory")

    def limited(values, device, **how):
        if torch.device(device).type == "cuda" and "gpu" in refused:
            raise full
        return to(values, "cpu")

    monkeypatch.setattr(torch.Tensor, "to", limited)
    if "pinned" in refused:
        monkeypatch.setattr(module, "_pinned", refuse("the system refuses to pin it"))
    store = AudioStore(packed, one_gpu)
    assert store.storage == storage
    assert store.flat[:, 0].tolist() == list(range(9))
    assert len([line for line in caplog.messages if "continuing without" in line]) == len(refused)
    if storage == "gpu":
        assert store.leave_gpu() == "in pinned memory"
        assert store.flat[:, 0].tolist() == list(range(9))
    assert store.leave_gpu() is None


def test_refused_storage_that_was_given_is_an_error(monkeypatch, tmp_path, one_gpu):
    packed = write_packed(tmp_path / "p", [np.arange(9).reshape(9, 1)])
    monkeypatch.setattr(module, "_pinned", refuse("the system refuses to pin it (CUDA error 2; see ulimit -l)"))
    with pytest.raises(UserError, match=r"in pinned memory failed: .*ulimit -l\); use --audio-cache auto"):
        AudioStore(packed, one_gpu, "pinned")
    assert AudioStore(packed, one_gpu, "gpu").leave_gpu() is None  # as given


def test_a_system_that_refuses_to_pin_memory_says_so(monkeypatch):
    cuda = SimpleNamespace(cudaHostRegister=lambda address, size, flags: 2)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cuda)
    with pytest.raises(RuntimeError, match=r"refuses to pin it \(CUDA error 2"):
        _pinned(np.zeros((8, 2), np.int16))


def test_batches_are_the_samples_of_their_clips(tmp_path):
    waves = [np.arange(40) + 100 * clip for clip in range(6)]
    parts = write_packed(tmp_path / "a", waves[:4]), write_packed(tmp_path / "b", waves[4:])
    store = JoinedStore([AudioStore(part, CPU) for part in parts])
    clips, starts = torch.tensor([[5, 0], [3, 4]]), torch.tensor([[7, 0], [30, 1]])
    expected = [[[waves[c][s : s + 10] for c, s in zip(*row, strict=True)]] for row in zip(clips, starts, strict=True)]
    for batch, wanted in zip(store.batches(clips, starts, 10), expected, strict=True):
        assert batch.dtype == torch.int16
        np.testing.assert_array_equal(batch[:, :, 0], wanted[0])
    out = torch.empty(2, 10, 1, dtype=torch.int16)
    store._copy(clips[1], starts[1], out)  # as when prefetching to a GPU
    np.testing.assert_array_equal(out[:, :, 0], expected[1][0])


@pytest.mark.parametrize(
    ("gpu", "memory", "option", "storage"),
    [
        (100, 100, "auto", "gpu"),
        (15, 100, "auto", "pinned"),
        (15, 15, "auto", "disk"),
        (15, 15, "gpu", "gpu"),
        (100, 15, "pinned", "pinned"),
        (100, 100, "disk", "disk"),
    ],
)
def test_audio_is_stored_where_there_is_room(monkeypatch, gpu, memory, option, storage):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gpu, gpu))
    monkeypatch.setattr(module, "_available_memory", lambda: memory)
    assert module._choose_storage(10, torch.device("cuda"), option)[0] == storage


def test_storage_without_room_or_gpu_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (9, 9))
    monkeypatch.setattr(module, "_available_memory", lambda: 9)
    for option in ("gpu", "pinned"):
        with pytest.raises(UserError, match="--audio-cache auto"):
            module._choose_storage(10, torch.device("cuda"), option)
        with pytest.raises(UserError, match="needs a GPU"):
            module._choose_storage(10, CPU, option)


def test_available_memory_is_read_from_the_system():
    assert module._available_memory() > 50e6


@pytest.mark.parametrize(("limits", "limit"), [(["max"], None), (["3000"], 3000), (["4000", "max", "2000"], 2000)])
def test_the_memory_limit_of_a_job_counts(monkeypatch, tmp_path, limits, limit):
    """The least of the job's own limit and those of the groups around it counts."""
    folders = [tmp_path / "/".join("abc"[:depth]) for depth in range(len(limits))]
    for folder, text in zip(folders, limits, strict=True):
        folder.mkdir(exist_ok=True)
        (folder / "memory.max").write_text(f"{text}\n")
    monkeypatch.setattr(module, "_CGROUPS", tmp_path)
    read = module.Path.read_text
    cgroup = f"4:memory:/elsewhere\n0::/{folders[-1].relative_to(tmp_path)}\n".replace("/.\n", "/\n")
    monkeypatch.setattr(
        module.Path, "read_text", lambda path, **how: cgroup if path.name == "cgroup" else read(path, **how)
    )
    available = module._available_memory()
    assert available == limit if limit else available > 50e6


def test_pinned_memory_is_unpinned_when_freed(monkeypatch):
    pinned = []
    cuda = SimpleNamespace(
        cudaHostRegister=lambda address, size, flags: pinned.append(address) or 0, cudaHostUnregister=pinned.remove
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cuda)
    flat = _pinned(np.zeros((8, 2), np.int16))
    assert pinned == [flat.data_ptr()]
    del flat
    assert not pinned
