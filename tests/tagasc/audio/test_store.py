from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tagasc.audio import store as module
from tagasc.audio.prefetch import DeviceBuffer, _fill_stream, prefetch
from tagasc.audio.store import AudioStore, JoinedStore, _page_locked
from tagasc.utils.device import to_device
from tagasc.utils.errors import UserError
from tests.helpers import write_packed

CPU = torch.device("cpu")


def slots(count):
    return [DeviceBuffer((2, 3), torch.float32, CPU, staged=False) for _ in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_prefetched_batches_come_in_order_each_whole(count):
    found = [batch.clone() for batch in prefetch(lambda number, out: out.fill_(number), count, slots(3))]
    assert [batch.unique().tolist() for batch in found] == [[number] for number in range(count)]


def test_a_batch_that_is_used_is_not_overwritten():
    for number, batch in enumerate(prefetch(lambda number, out: out.fill_(number), 20, slots(2))):
        for _ in range(3):
            assert (batch == number).all()


def test_batches_come_in_inference_mode_too():
    with torch.inference_mode():
        staged = [DeviceBuffer((2, 3), torch.float32, CPU, staged=True) for _ in range(2)]
        for of in (slots(2), staged):
            found = [batch.clone() for batch in prefetch(lambda number, out: out.fill_(number), 5, of)]
            assert len(found) == 5


def test_an_error_while_prefetching_reaches_who_waits():
    def fill(number, out):
        if number == 4:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(prefetch(fill, 9, slots(3)))


def test_all_slots_are_filled_on_one_stream(monkeypatch):
    """Of 32 streams torch gives out the next in turn, so that a new one may be one on which a graph is recorded."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    asked, empty = [], torch.empty
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, **_: empty(shape, dtype=dtype))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: asked.append(device) or stream)
    monkeypatch.setattr(torch.cuda, "Event", SimpleNamespace)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    _fill_stream.cache_clear()
    for staged in (True, False):
        assert all(DeviceBuffer((2, 3), torch.int16, torch.device("cuda"), staged)._stream is stream for _ in range(40))
    assert asked == [torch.device("cuda")]
    _fill_stream.cache_clear()


def test_what_is_sent_arrives():
    values = torch.arange(6).reshape(2, 3)
    assert torch.equal(to_device(values, CPU), values)


def test_what_is_sent_to_a_gpu_is_page_locked_and_not_waited_for(monkeypatch):
    """From pageable memory, a copy first waits for all that the GPU has to do."""
    did = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: did.append("locked") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, non_blocking=False: did.append((device, non_blocking)))
    to_device(torch.zeros(3), torch.device("cuda"))
    assert did == ["locked", (torch.device("cuda"), True)]


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
    store._copy(clips[1], starts[1], out)  # as a batch on its way to a GPU
    np.testing.assert_array_equal(out[:, :, 0], expected[1][0])


@pytest.mark.parametrize(
    ("gpu", "memory", "asked", "storage"),
    [
        (100, 100, "auto", "gpu"),
        (15, 100, "auto", "pinned"),
        (15, 15, "auto", "disk"),
        (15, 15, "gpu", "gpu"),
        (100, 15, "pinned", "pinned"),
        (100, 100, "disk", "disk"),
    ],
)
def test_audio_lies_where_there_is_room(monkeypatch, gpu, memory, asked, storage):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gpu, gpu))
    monkeypatch.setattr(module, "_available_memory", lambda: memory)
    assert module._choose_storage(10, torch.device("cuda"), asked)[0] == storage


def test_audio_that_cannot_lie_where_it_is_wanted_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (9, 9))
    monkeypatch.setattr(module, "_available_memory", lambda: 9)
    for place in ("gpu", "pinned"):
        with pytest.raises(UserError, match="--audio-cache auto"):
            module._choose_storage(10, torch.device("cuda"), place)
        with pytest.raises(UserError, match="needs a GPU"):
            module._choose_storage(10, CPU, place)


def test_available_memory_is_read_from_the_system():
    assert module._available_memory() > 50e6


@pytest.mark.parametrize(("limits", "found"), [(["max"], None), (["3000"], 3000), (["4000", "max", "2000"], 2000)])
def test_a_jobs_limit_of_memory_counts(monkeypatch, tmp_path, limits, found):
    """The job's own, or that of a job around it, whichever is least."""
    folders = [tmp_path / "/".join("abc"[:depth]) for depth in range(len(limits))]
    for folder, limit in zip(folders, limits, strict=True):
        folder.mkdir(exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
    monkeypatch.setattr(module, "_CGROUPS", tmp_path)
    read = module.Path.read_text
    mine = f"4:memory:/elsewhere\n0::/{folders[-1].relative_to(tmp_path)}\n".replace("/.\n", "/\n")
    monkeypatch.setattr(
        module.Path, "read_text", lambda path, **how: mine if path.name == "cgroup" else read(path, **how)
    )
    available = module._available_memory()
    assert available == found if found else available > 50e6


def test_page_locked_memory_is_unlocked_when_it_is_freed(monkeypatch):
    locked = []
    cuda = SimpleNamespace(
        cudaHostRegister=lambda address, size, flags: locked.append(address) or 0, cudaHostUnregister=locked.remove
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cuda)
    flat = _page_locked(np.zeros((8, 2), np.int16))
    assert locked == [flat.data_ptr()]
    del flat
    assert not locked
