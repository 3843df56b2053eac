"""A bundle at work: windows of sound through tagger, network and SVM with onnxruntime."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tagasc.bundle.audio import Contract, Sound, array_sound, open_sound, windows
from tagasc.bundle.folder import HEAD, MODEL, TAGGER, TRAINING, read_bundle
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_npz

_MOST_SAMPLES = 2**21  # of the windows that are computed together
_MOST_WINDOWS = 16
OUTPUTS = ("scene", "probabilities", "pairs", "code")


def load(folder: str | Path, threads: int = 0, check: bool = True) -> "Bundle":
    """Open a bundle.

    Args:
        folder: folder of the bundle.
        threads: threads of onnxruntime; 0: one per core.
        check: compare every file with its hash.

    Raises:
        UserError: it is no bundle, of another format, incomplete or changed.
    """
    folder = Path(folder)
    return Bundle(folder, read_bundle(folder, check), threads)


@dataclass(frozen=True)
class Window:
    """The answer for one window.

    Attributes:
        start: where it begins, s.
        seconds: its length, s.
        scene: index of the scene that the SVM votes for.
        probabilities: float32 (scenes,); see ``bundle.json`` for how they were calibrated.
        pairs: float32 (pairs,), the SVM's decisions between scenes (0, 1), (0, 2), …; positive for the first.
        code: float32 (code size,).
        tags: float32 (events,), probability of each event; None for a system without tags.
    """

    start: float
    seconds: float
    scene: int
    probabilities: np.ndarray
    pairs: np.ndarray
    code: np.ndarray
    tags: np.ndarray | None


@dataclass(frozen=True)
class Answer:
    """The answer for one recording, from one window or several.

    Attributes:
        name: name of the recording.
        seconds: its length, s.
        rate: its sampling rate, Hz.
        channels: its number of channels.
        notes: what was converted, in words.
        windows: answers by window.
        scenes: names of the scenes, in the order of all arrays.
        event_names: names of the events, likewise.
    """

    name: str
    seconds: float
    rate: int
    channels: int
    notes: tuple[str, ...]
    windows: tuple[Window, ...]
    scenes: Sequence[str]
    event_names: Sequence[str]

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Probability of each scene, mean over windows, (scenes,)."""
        return np.mean([window.probabilities for window in self.windows], axis=0)

    @property
    def index(self) -> int:
        """Index of the answer: of one window the SVM's vote, of several the highest mean probability."""
        return self.windows[0].scene if len(self.windows) == 1 else int(self.probabilities.argmax())

    @property
    def scene(self) -> str:
        """Name of the scene."""
        return self.scenes[self.index]

    @property
    def probability(self) -> float:
        """Probability of the answer."""
        return float(self.probabilities[self.index])

    @cached_property
    def decisions(self) -> np.ndarray:
        """Mean decision of the SVM for the answer against each scene, (scenes,); 0 against itself."""
        return against(np.mean([window.pairs for window in self.windows], axis=0), self.index, len(self.scenes))

    @property
    def margin(self) -> float:
        """Decision against the closest rival; 1 is the edge of the SVM's margin, below 0 it won by votes only."""
        return float(np.delete(self.decisions, self.index).min())

    def ranked(self) -> list[tuple[str, float]]:
        """Return every scene with its probability, the answer first, then by probability."""
        order = sorted(range(len(self.scenes)), key=lambda n: (n != self.index, -self.probabilities[n]))
        return [(self.scenes[n], float(self.probabilities[n])) for n in order]

    def events(self, count: int, least: float = 0.0) -> list[tuple[str, float]]:
        """Return the ``count`` likeliest events with their highest probability over windows, at least ``least``."""
        if self.windows[0].tags is None:
            return []
        highest = np.max([window.tags for window in self.windows], axis=0)
        order = np.argsort(-highest, kind="stable")[:count]
        return [(self.event_names[n], float(highest[n])) for n in order if highest[n] >= least]

    def timeline(self) -> list[tuple[float, float, str, float]]:
        """Join neighbouring windows of one scene: start s, end s, scene, mean probability."""
        parts: list[list] = []
        for window in self.windows:
            end = min(window.start + window.seconds, self.seconds)
            if parts and parts[-1][2] == window.scene:
                parts[-1][1] = end
                parts[-1][3].append(window.probabilities[window.scene])
            else:
                if parts:
                    parts[-1][1] = window.start
                parts.append([window.start, end, window.scene, [window.probabilities[window.scene]]])
        return [(start, end, self.scenes[scene], float(np.mean(values))) for start, end, scene, values in parts]


def against(pairs: np.ndarray, scene: int, scenes: int) -> np.ndarray:
    """Return the decisions of one scene against each, (..., scenes), from those of all pairs, (..., pairs)."""
    decisions = np.zeros((*pairs.shape[:-1], scenes), pairs.dtype)
    for number, (first, second) in enumerate(combinations(range(scenes), 2)):
        if scene == first:
            decisions[..., second] = pairs[..., number]
        elif scene == second:
            decisions[..., first] = -pairs[..., number]
    return decisions


class Bundle:
    """An opened bundle; a call classifies samples.

    Attributes:
        folder: folder of the bundle.
        about: content of ``bundle.json``.
        contract: the sound that it takes.
        scenes: names of the scenes.
        events: names of the events; empty if it uses no tags.
    """

    def __init__(self, folder: Path, about: dict[str, Any], threads: int = 0) -> None:
        """Open the models of a bundle whose description was read; ``load`` reads and checks it."""
        self.folder, self.about = folder, about
        audio = self.about["audio"]
        self.contract = Contract(*(audio[name] for name in ("sampling_rate", "channels", "frames", "sample_format")))
        self.scenes, self.events = self.about["scenes"], self.about["events"]
        self._threads = threads
        self._model = self._session(MODEL)
        self._tagger = self._session(TAGGER) if self.has_tagger else None

    @property
    def has_tagger(self) -> bool:
        """Whether the bundle computes tags itself."""
        return self.about["tagger"]["kind"] == "own"

    @property
    def uses_tags(self) -> bool:
        """Whether the system uses tags."""
        return self.about["tagger"]["kind"] != "none"

    def __call__(self, samples: np.ndarray, rate: int, tags: np.ndarray | None = None, hop: float = 0) -> Answer:
        """Classify samples.

        Args:
            samples: (frames,) or (frames, channels), floating point in -1..1, or int16.
            rate: sampling rate, Hz.
            tags: probability of each event, (events,); only for bundles whose tagger is elsewhere.
            hop: distance of the windows of a long recording, s; 0: they follow each other.

        Raises:
            UserError: the samples are impossible, or tags are missing.
        """
        return self.classify(array_sound(samples, rate), tags, hop)

    def classify_file(self, path: str | Path, tags: np.ndarray | None = None, hop: float = 0) -> Answer:
        """Classify a file of any length in bounded memory; arguments and errors as in a call."""
        with open_sound(path) as sound:
            return self.classify(sound, tags, hop)

    def classify(self, sound: Sound, tags: np.ndarray | None = None, hop: float = 0) -> Answer:
        """Classify a recording; arguments and errors as in a call."""
        answers: list[Window] = []
        for starts, waves in self.batches(sound, hop):
            outputs = self.run(waves, self.tags(waves, tags))
            answers += self._windows(starts, outputs)
        notes = tuple(sound.notes)
        return Answer(
            sound.name, sound.seconds, sound.rate, sound.channels, notes, tuple(answers), self.scenes, self.events
        )

    def batches(self, sound: Sound, hop: float = 0) -> Iterator[tuple[list[int], np.ndarray]]:
        """Cut a recording into windows, several at a time: first frames, and float32 (windows, frames, channels).

        Raises:
            UserError: see ``tagasc.bundle.audio.windows``; or the hop is shorter than one sample.
        """
        step = round(hop * self.contract.sampling_rate) if hop else self.contract.frames
        if not 1 <= step <= self.contract.frames:
            longest = self.contract.seconds
            raise UserError(f"--hop {hop:g} must be more than 0 s and at most {longest:g} s, the length of a window")
        size = max(1, min(_MOST_WINDOWS, _MOST_SAMPLES // (self.contract.frames * self.contract.channels)))
        cut = windows(sound, self.contract, step)
        while batch := list(islice(cut, size)):
            starts, waves = zip(*batch, strict=True)
            yield list(starts), np.stack(waves)

    def tags(self, waves: np.ndarray, given: np.ndarray | None = None) -> np.ndarray | None:
        """Return the tags of windows, float32 (windows, events): computed, or the given ones of the recording.

        Raises:
            UserError: the tagger is not in the bundle and none are given, or they are not such a vector.
        """
        if not self.uses_tags:
            return None
        if given is None:
            if self._tagger is None:
                source = self.about["tagger"]["source"]
                raise UserError(f"the tagger of this bundle, {source}, is not in it; give its tags (--tags FILE.npz)")
            return self._tagger.run(["tags"], {"waveform": waves})[0]
        given = np.asarray(given, np.float32)
        if given.shape != (len(self.events),) or not ((given >= 0) & (given <= 1)).all():
            raise UserError(f"tags must be {len(self.events)} probabilities, in the order of the bundle's events")
        return np.repeat(given[None], len(waves), axis=0)

    def run(
        self, waves: np.ndarray, tags: np.ndarray | None, outputs: Sequence[str] = OUTPUTS
    ) -> dict[str, np.ndarray | None]:
        """Run network and SVM; return the outputs by name, and the tags."""
        feeds = {"waveform": waves} | ({} if tags is None else {"tags": tags})
        values = self._model.run(list(outputs), feeds)
        return {"tags": tags, **dict(zip(outputs, values, strict=True))}

    def run_head(self, feature_map: np.ndarray, tags: np.ndarray, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Run the part behind the feature map, (batch, f, t), which no tag enters, with other tags, (batch, c)."""
        values = self._head.run(list(outputs), {"feature_map": feature_map, "tags": tags})
        return dict(zip(outputs, values, strict=True))

    @cached_property
    def outputs(self) -> list[str]:
        """Names of what ``run`` can return."""
        return [output.name for output in self._model.get_outputs()]

    @cached_property
    def training(self) -> dict[str, np.ndarray]:
        """Training clips: ``ids``, ``scenes``, ``codes`` (clips, code size); mean ``tags`` (events,)."""
        return read_npz(self.folder / TRAINING, ("ids", "scenes", "codes", "tags"), "stage 9 (bundle)")

    @cached_property
    def _head(self) -> onnxruntime.InferenceSession:
        return self._session(HEAD)

    def _windows(self, starts: list[int], outputs: dict[str, Any]) -> list[Window]:
        tags = outputs["tags"]
        return [
            Window(
                start / self.contract.sampling_rate,
                self.contract.seconds,
                int(outputs["scene"][n]),
                outputs["probabilities"][n],
                outputs["pairs"][n],
                outputs["code"][n],
                None if tags is None else tags[n],
            )
            for n, start in enumerate(starts)
        ]

    def _session(self, name: str) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3  # errors only
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads sleep
        try:
            return onnxruntime.InferenceSession(self.folder / name, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises types of its own
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"{self.folder / name} cannot be run ({reason}); use onnxruntime 1.20 or newer") from None
