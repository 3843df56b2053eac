"""What a training falls back on where this GPU, driver, compiler or memory cannot do what is fastest.

A rung is a way to run the same steps: ``captured`` (compiled, and replayed as one CUDA graph), ``compiled``, ``plain``.
If a rung fails, the work is done again from its last checkpoint with the rung below. Where memory is full, the audio
leaves the GPU first. Inference falls back on smaller batches.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch

from tagasc.utils.device import Compile, one_line, out_of_memory, release_memory, should_compile
from tagasc.utils.errors import UserError
from tagasc.utils.log import log

Rung = Literal["captured", "compiled", "plain"]
RUNGS: tuple[Rung, ...] = ("captured", "compiled", "plain")
Result = TypeVar("Result")
_that_fit: dict[tuple[torch.device, str], int] = {}  # clips per batch, after a device's memory was full


class RungError(RuntimeError):
    """Steps on a rung failed; the rung below may work."""

    def __init__(self, rung: Rung, error: Exception) -> None:
        super().__init__(one_line(error))
        self.rung = rung


@contextmanager
def on_rung(rung: Rung) -> Iterator[None]:
    """Raise ``RungError`` for what fails in the block; errors of full memory, and of ``plain`` steps, do not change."""
    try:
        yield
    except Exception as error:
        if rung == "plain" or out_of_memory(error):
            raise
        raise RungError(rung, error) from error


class Ladder:
    """The rung that a process uses. It only ever falls, so that a sweep finds out once what does not work."""

    def __init__(self, mode: Compile, device: torch.device, free_gpu: Callable[[], str | None] = lambda: None) -> None:
        """Begin with the highest rung that ``mode`` and a trial compilation allow; it is found on first use.

        Args:
            mode: auto; always: a rung that fails is an error; never: plain.
            device: device of the steps; only a GPU captures.
            free_gpu: function that moves data off the GPU and returns where to, or None if there is nothing to move.
        """
        self.mode, self.device, self._free_gpu = mode, device, free_gpu
        self._rung: Rung | None = None

    @property
    def rung(self) -> Rung:
        """The rung to use now."""
        if self._rung is None:
            compiles = should_compile(self.mode, self.device)
            self._rung = ("captured" if self.device.type == "cuda" else "compiled") if compiles else "plain"
        return self._rung

    def fall_below(self, rung: Rung, why: str) -> None:
        """Use a lower rung than ``rung`` from here on, and log why.

        Raises:
            UserError: the mode is ``always``.
        """
        if self.mode == "always":
            raise UserError(f"--compile always: {rung} steps fail: {why}; use --compile auto")
        self._rung = RUNGS[RUNGS.index(rung) + 1]
        log.warning("%s steps fail, continuing with %s ones: %s", rung, self._rung, why)

    def run(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Return ``work(rung, *arguments)``, called again with what is left after a failure.

        Args:
            work: function that resumes by itself where it failed.
            arguments: its further arguments.

        Raises:
            UserError: the mode is ``always``, and a rung failed.
        """
        while True:
            rung = self.rung
            try:
                result = work(rung, *arguments)
                if self.device.type == "cuda":
                    release_memory()  # a finished training's graph
                return result
            except Exception as error:
                if not self._can_continue(error, rung):
                    raise
            release_memory()  # of the failed attempt, whose frames the exception has kept until here

    def _can_continue(self, error: Exception, rung: Rung) -> bool:
        full = out_of_memory(error)
        if not (full or isinstance(error, RungError)) or not self._gpu_responds():
            return False
        if full and (place := self._free_gpu()):
            log.warning("the GPU's memory is full, continuing with the audio %s", place)
            return True
        failed = error.rung if isinstance(error, RungError) else rung
        if failed == "plain":
            return False
        self.fall_below(failed, "the GPU's memory is full" if full else str(error))
        return True

    def _gpu_responds(self) -> bool:
        """Return whether the GPU still works; after some errors it fails until the process ends."""
        try:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
        except RuntimeError:
            return False
        return True


def in_batches_that_fit(work: Callable[[int], Result], batch: int, device: torch.device, what: str) -> Result:
    """Return ``work(batch)``, called again with half the batch while the GPU's memory is full.

    Args:
        work: function of the largest number of clips per batch.
        batch: number to begin with; a device keeps a smaller one that fitted.
        device: device of the work.
        what: what the work computes, for the log: codes or tags.
    """
    while True:
        batch = min(batch, _that_fit.get((device, what), batch))
        try:
            return work(batch)
        except Exception as error:
            if not out_of_memory(error) or batch == 1:
                raise
        release_memory()
        _that_fit[device, what] = batch // 2
        log.warning("the GPU's memory is full, continuing with %s in batches of %d clips", what, batch // 2)
