"""Sound events and backgrounds (ambiences) for ``compose.py``: synthesised, or cut from recordings.

Synthesised events are generated on demand: class, number and seed determine every sample. Each synthesiser models the
physics of its sound (a struck bell's inharmonic partials, a voice's pulses through formants, steps as pairs of thuds)
just closely enough to distinguish the classes by ear.
"""

import io
import re
from collections.abc import Callable
from functools import lru_cache
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from tagasc.utils.errors import UserError

Wave = np.ndarray

Random = np.random.Generator

POOLS = ("tagging_train", "tagging_test", "scene_train", "scene_test")

_PER_POOL = dict(zip(POOLS, (48, 16, 32, 16), strict=True))  # synthesised recordings per class and pool

_SHORTEST_STRETCH = 0.25  # seconds of a recorded background per location

_SHARES = (2, 1, 1, 1)  # proportions of the groups of recordings


def write_sound(path: Path, wave: Wave, rate: int, subtype: str) -> None:
    """Write a WAV file.

    Args:
        path: the file.
        wave: samples in -1..1, (samples,) or (samples, channels).
        rate: sampling rate, Hz.
        subtype: format of the samples, such as PCM_24.
    """
    content = io.BytesIO()  # libsndfile does not say that a disk is full; the operating system does
    soundfile.write(content, wave, rate, format="WAV", subtype=subtype)
    path.write_bytes(content.getbuffer())


def band_noise(random: Random, samples: int, rate: int, low: float, high: float, tilt: float = 0.0) -> Wave:
    """Return noise between two frequencies in Hz, with soft edges, ``tilt`` dB per octave and RMS 1."""
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / rate), 1.0)
    gain = (frequency / 1000) ** (tilt / 6.02) if tilt else np.ones_like(frequency)
    for ratio in (low / frequency, frequency / high):
        gain /= 1 + np.square(np.square(np.square(ratio)))
    phase = random.uniform(0, 2 * np.pi, len(frequency))
    noise = np.fft.irfft(gain * np.exp(1j * phase), samples)
    return noise / (np.sqrt(np.mean(noise**2)) + 1e-12)


def slow(random: Random, samples: int, rate: int, hertz: float) -> Wave:
    """Return a smooth random curve with about ``hertz`` cycles per second, mean 0, standard deviation about 1."""
    knots = max(int(samples / rate * hertz * 2) + 3, 4)
    return np.interp(np.linspace(0, knots - 1, samples), np.arange(knots), random.normal(size=knots))


def _time(rate: int, seconds: float) -> Wave:
    return np.arange(max(int(rate * seconds), 16)) / rate


def _swell(samples: int, attack: float = 0.1, release: float = 0.2) -> Wave:
    position = np.linspace(0, 1, samples)
    return np.minimum(np.minimum(position / attack, (1 - position) / release), 1).clip(0)


def _harmonics(track: Wave, rate: int, gain: Callable[[Wave], Wave], count: int) -> Wave:
    """Sum the harmonics of a gliding fundamental; ``gain`` maps frequencies in Hz to amplitudes."""
    phase = 2 * np.pi * np.cumsum(track) / rate
    total, before, sine, twice_cosine = np.zeros_like(phase), 0.0, np.sin(phase), 2 * np.cos(phase)
    for number in range(1, count + 1):
        frequency = number * track
        total += np.where(frequency < 0.45 * rate, gain(frequency), 0) * sine
        before, sine = sine, twice_cosine * sine - before  # sin((n + 1) φ) = 2 cos φ sin(n φ) - sin((n - 1) φ)
    return total


def _struck(random: Random, rate: int, base: float, ratios: tuple, decay: float, seconds: float) -> Wave:
    """Synthesise a struck body: partials at ``ratios`` of ``base``, of which higher ones decay faster."""
    t = _time(rate, seconds)
    parts = [(base * r * random.uniform(0.99, 1.01), random.uniform(0.3, 1) / np.sqrt(r)) for r in ratios]
    ring = [
        a * np.exp(-t * r / decay) * np.sin(2 * np.pi * f * t)
        for (f, a), r in zip(parts, ratios, strict=True)
        if f < 0.45 * rate
    ]
    return np.sum(ring, axis=0) if ring else np.zeros_like(t)


def _sequence(random: Random, rate: int, make: Callable[[], Wave], count: int, gap: tuple[float, float]) -> Wave:
    """Place sounds in sequence, ``gap`` seconds from onset to onset."""
    pieces, onset = [], 0
    for _ in range(count):
        pieces.append((onset, make() * random.uniform(0.6, 1)))
        onset += int(rate * random.uniform(*gap))
    result = np.zeros(max(start + len(piece) for start, piece in pieces))
    for start, piece in pieces:
        result[start : start + len(piece)] += piece
    return result


def _voice(random: Random, rate: int, low: float, high: float, size: float) -> Wave:
    """Synthesise syllables: a pulse train with three formants, drawn per vowel and scaled by ``size``."""
    pitch = random.uniform(low, high)

    def syllable() -> Wave:
        t = _time(rate, random.uniform(0.12, 0.3))
        formants = size * np.array([random.uniform(300, 800), random.uniform(900, 2300), random.uniform(2500, 3200)])
        track = pitch * (1 + 0.12 * random.normal()) * np.linspace(1.08, 0.92, len(t))
        peaks = lambda f: sum(g / (1 + ((f - c) / 120) ** 2) for c, g in zip(formants, (1, 0.6, 0.3), strict=True))
        voiced = _harmonics(track, rate, peaks, 24) * _swell(len(t))
        hush = band_noise(random, len(t), rate, 2500, 7000) * 0.05 * _swell(len(t))
        return voiced + hush

    return _sequence(random, rate, syllable, random.integers(3, 9), (0.16, 0.32))


def _engine(random: Random, rate: int, low: float, high: float, seconds: float, harsh: float) -> Wave:
    t = _time(rate, seconds)
    track = np.linspace(*random.uniform(low, high, 2), len(t)) * (1 + 0.02 * slow(random, len(t), rate, 5))
    tone = _harmonics(track, rate, lambda f: (100 / (f + 60)) ** (1.2 - harsh), 30)
    return (tone / (tone.std() + 1e-9) + 0.4 * band_noise(random, len(t), rate, 80, 2500, -4)) * _swell(
        len(t), 0.3, 0.3
    )


def _bark(random: Random, rate: int) -> Wave:
    pitch = random.uniform(250, 700)

    def bark() -> Wave:
        t = _time(rate, random.uniform(0.1, 0.22))
        track = pitch * (1 + 0.5 * np.sin(np.pi * np.linspace(0, 1, len(t))))
        tone = _harmonics(track, rate, lambda f: 1 / (1 + ((f - 1200) / 700) ** 2), 12)
        return (tone + band_noise(random, len(t), rate, 400, 3000) * 0.5) * _swell(len(t), 0.08, 0.5)

    return _sequence(random, rate, bark, random.integers(1, 5), (0.3, 0.6))


def _chirp(random: Random, rate: int) -> Wave:
    base, bend, turns = random.uniform(2500, 5500), random.uniform(-0.4, 0.4), random.uniform(0, 25)

    def chirp() -> Wave:
        t = _time(rate, random.uniform(0.05, 0.18))
        track = base * (1 + bend * np.linspace(-1, 1, len(t)) + 0.08 * np.sin(2 * np.pi * turns * t))
        return np.sin(2 * np.pi * np.cumsum(track.clip(0, 0.45 * rate)) / rate) * _swell(len(t), 0.2, 0.4)

    return _sequence(random, rate, chirp, random.integers(3, 11), (0.09, 0.25))


def _steps(random: Random, rate: int) -> Wave:
    pace, hard = random.uniform(0.42, 0.62), random.uniform(0.1, 0.8)

    def step() -> Wave:
        t = _time(rate, 0.12)
        thud = np.sin(2 * np.pi * random.uniform(70, 120) * t) * np.exp(-t / 0.02)
        click = band_noise(random, len(t), rate, 900, 5000) * np.exp(-t / 0.012)
        return thud + hard * click

    return _sequence(random, rate, step, random.integers(3, 7), (pace * 0.95, pace * 1.05))


def _passing(random: Random, rate: int) -> Wave:
    t = _time(rate, random.uniform(1.8, 3.5))
    near = np.exp(-(((t - t[-1] * random.uniform(0.4, 0.6)) / random.uniform(0.3, 0.7)) ** 2))
    return (
        band_noise(random, len(t), rate, 60, 900, -3) * near
        + 0.6 * band_noise(random, len(t), rate, 700, 4000) * near**2
    )


def _screech(random: Random, rate: int) -> Wave:
    t = _time(rate, random.uniform(0.8, 2.2))
    track = random.uniform(1500, 3200) * (1 + 0.01 * slow(random, len(t), rate, 6))
    loud = (0.6 + 0.4 * slow(random, len(t), rate, 8)).clip(0)
    return _harmonics(track, rate, lambda f: 1500 / f, 3) * loud * _swell(len(t), 0.2, 0.3)


def _hiss(random: Random, rate: int) -> Wave:
    t = _time(rate, random.uniform(0.4, 1.4))
    return band_noise(random, len(t), rate, random.uniform(1500, 3000), 7800, 2) * np.exp(-t / random.uniform(0.1, 0.5))


def _slam(random: Random, rate: int) -> Wave:
    t = _time(rate, 0.6)
    low = np.sin(2 * np.pi * random.uniform(50, 110) * t) * np.exp(-t / 0.08)
    return low + band_noise(random, len(t), rate, 100, 2500, -4) * np.exp(-t / random.uniform(0.03, 0.09))


def _accordion(random: Random, rate: int) -> Wave:
    scale = random.uniform(220, 330) * 2 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12]) / 12)

    def chord() -> Wave:
        t = _time(rate, random.uniform(0.25, 0.7))
        notes = random.choice(scale, 2, replace=False)
        reeds = [
            _harmonics(np.full(len(t), n * d), rate, lambda f: (300 / f) ** 0.8, 14) for n in notes for d in (1, 1.006)
        ]
        return np.sum(reeds, axis=0) * _swell(len(t), 0.15, 0.15)

    return _sequence(random, rate, chord, random.integers(3, 7), (0.25, 0.5))


def _trickle(random: Random, rate: int) -> Wave:
    def drop() -> Wave:
        t = _time(rate, random.uniform(0.02, 0.06))
        return np.sin(2 * np.pi * (random.uniform(500, 2500) * t + random.uniform(2e3, 8e3) * t**2)) * np.exp(
            -t / 0.015
        )

    drops = _sequence(random, rate, drop, random.integers(40, 90), (0.01, 0.05))
    return drops + 0.15 * band_noise(random, len(drops), rate, 600, 5000) * _swell(len(drops))


def _bell(random: Random, rate: int, base: tuple[float, float], decay: float, strokes: int, gap: float) -> Wave:
    pitch = random.uniform(*base)
    strike = lambda: _struck(random, rate, pitch, (0.5, 1, 1.19, 1.5, 2, 2.6, 3.1, 4.2), decay, min(4 * decay, 2.5))
    return _sequence(random, rate, strike, strokes, (gap, gap * 1.1))


SYNTHESISERS: dict[str, Callable[[Random, int], Wave]] = {
    "Accordion": _accordion,
    "Bark": _bark,
    "Bicycle_bell": lambda r, rate: _bell(r, rate, (1400, 2600), 0.35, int(r.integers(1, 4)), 0.18),
    "Bus": lambda r, rate: _engine(r, rate, 25, 60, r.uniform(1.5, 3), 0.1),
    "Car_passing_by": _passing,
    "Child_speech_and_kid_speaking": lambda r, rate: _voice(r, rate, 260, 420, 1.25),
    "Chink_and_clink": lambda r, rate: _sequence(
        r,
        rate,
        lambda: _struck(r, rate, r.uniform(2200, 3500), (1, 1.47, 2.09), 0.08, 0.3),
        r.integers(1, 5),
        (0.08, 0.4),
    ),
    "Chirp_and_tweet": _chirp,
    "Church_bell": lambda r, rate: _bell(r, rate, (300, 620), 1.2, int(r.integers(1, 3)), 1.0),
    "Female_speech_and_woman_speaking": lambda r, rate: _voice(r, rate, 165, 250, 1.1),
    "Hiss": _hiss,
    "Male_speech_and_man_speaking": lambda r, rate: _voice(r, rate, 85, 150, 0.95),
    "Motorcycle": lambda r, rate: _engine(r, rate, 60, 160, r.uniform(1.2, 2.5), 0.6),
    "Screech": _screech,
    "Slam": _slam,
    "Trickle_and_dribble": _trickle,
    "Walk_and_footsteps": _steps,
}


class SynthesisedEvents:
    """Synthesised events; the pools share no recording.

    Attributes:
        classes: names of the events, in ASCII order.
        dropped: reason by class that is left out; empty.
    """

    def __init__(self, rate: int, seed: int) -> None:
        self.rate, self.seed = rate, seed
        self.classes = sorted(SYNTHESISERS)
        self.dropped: dict[str, str] = {}

    def draw(self, name: str, pool: str, random: Random) -> Wave:
        """Draw a recording of a class from a pool: mono, peak 1."""
        return _synthesised(name, pool, int(random.integers(_PER_POOL[pool])), self.rate, self.seed)


@lru_cache(maxsize=512)  # most recordings of both pools of scenes; 65 MB at 16 kHz
def _synthesised(name: str, pool: str, number: int, rate: int, seed: int) -> Wave:
    random = np.random.default_rng([seed, 1, sorted(SYNTHESISERS).index(name), POOLS.index(pool), number])
    wave = _peak(SYNTHESISERS[name](random, rate))
    wave.setflags(write=False)  # as it will be returned again
    return wave


class RecordedEvents:
    """Events cut from recordings, in a folder with a subfolder per class.

    Files of the same group (the match of ``group`` in the file name) may come from the same recording. So every group
    is in one pool only, across all classes. A class with no file in some pool is dropped.
    """

    def __init__(self, folder: Path, rate: int, seed: int, group: str, backgrounds: list[str]) -> None:
        """Assign the files to the pools.

        Raises:
            UserError: no class has a file in every pool.
        """
        self.rate = rate
        files = {child.name: sorted(audio_files(child)) for child in sorted(folder.iterdir()) if child.is_dir()}
        groups = {file: group_of(file, group) for class_files in files.values() for file in class_files}
        pools = _deal(sorted(set(groups.values())), seed)
        self.files, self.dropped = {}, {}
        for name, class_files in files.items():
            by_pool = {pool: [file for file in class_files if groups[file] in pools[pool]] for pool in POOLS}
            empty = [pool for pool in POOLS if not by_pool[pool]]
            if name.lower() in backgrounds:
                self.dropped[name] = "is a background"
            elif empty:
                self.dropped[name] = f"no recording for {', '.join(empty)}"
            else:
                self.files[name] = by_pool
        self.classes = sorted(self.files)
        if not self.classes:
            raise UserError(
                f"{folder}: no class has recordings for all of {', '.join(POOLS)}; add recordings, or change --group"
            )

    def draw(self, name: str, pool: str, random: Random) -> Wave:
        """Draw a recording of a class from a pool: mono, trimmed of silence, peak 1."""
        files = self.files[name][pool]
        return _load_event(files[int(random.integers(len(files)))], self.rate)


class RecordedBackgrounds:
    """Backgrounds cut from long recordings; every location has a separate stretch of a file."""

    def __init__(self, folder: Path, rate: int) -> None:
        """List the files.

        Raises:
            UserError: the folder has no audio.
        """
        self.rate = rate
        self.files = sorted(audio_files(folder))
        if not self.files:
            raise UserError(f"{folder} holds no audio; give a folder of long recordings as --backgrounds")

    @property
    def names(self) -> list[str]:
        """Names of the backgrounds, from the file names."""
        return [file.stem.lower() for file in self.files]

    def draw(self, background: int, stretch: int, stretches: int, samples: int, random: Random) -> Wave:
        """Draw ``samples`` frames from a stretch: stereo, of pieces joined by crossfades, RMS 1.

        Args:
            background: index of the file.
            stretch: index of the location's stretch.
            stretches: number of stretches of the file.
            samples: number of frames.
            random: random generator.

        Raises:
            UserError: the stretch is silent or too short.
        """
        file = self.files[background % len(self.files)]
        recording = load_stereo(file, self.rate)
        length = len(recording) // stretches
        source = recording[stretch * length : (stretch + 1) * length]
        if length < _SHORTEST_STRETCH * self.rate or not np.abs(source).max() > 0:
            raise UserError(
                f"{file}: its part {stretch + 1} of {stretches} is silent or shorter than"
                f" {_SHORTEST_STRETCH} s; give longer backgrounds, or more clips per location"
            )
        fade = min(self.rate // 8, len(source) // 4)
        result = np.zeros((samples + len(source), 2))
        start = 0
        while start < samples:
            piece = source[int(random.integers(max(len(source) // 4, 1))) :].copy()
            if fade:
                ramp = np.sin(np.linspace(0, np.pi / 2, fade))[:, None]
                piece[:fade] *= ramp
                piece[-fade:] *= ramp[::-1]
            result[start : start + len(piece)] += piece
            start += max(len(piece) - fade, 1)
        return result[:samples] / (np.sqrt(np.mean(result[:samples] ** 2)) + 1e-12)


def audio_files(folder: Path) -> list[Path]:
    """List the sound files in a folder."""
    return [file for file in folder.iterdir() if file.suffix.lower() in (".wav", ".flac", ".ogg", ".mp3")]


def group_of(file: Path, pattern: str) -> str:
    """Return the group of a file, from its name; files of a group may come from the same recording.

    Raises:
        UserError: the name does not match the pattern.
    """
    match = re.match(pattern, file.stem)
    if match is None:
        raise UserError(f"{file}: its name does not match --group {pattern!r}; give a pattern that every file matches")
    return match.group(match.lastindex or 0)


def _deal(groups: list[str], seed: int) -> dict[str, set[str]]:
    """Deal groups of recordings to the pools in proportion 2:1:1:1."""
    shuffled = np.random.default_rng([seed, 2]).permutation(groups).tolist()
    deck = [pool for pool, share in zip(POOLS, _SHARES, strict=True) for _ in range(share)]
    return {pool: {g for n, g in enumerate(shuffled) if deck[n % len(deck)] == pool} for pool in POOLS}


def _peak(wave: Wave) -> Wave:
    return wave / (np.abs(wave).max() + 1e-12)


@lru_cache(maxsize=1024)
def _load_event(file: Path, rate: int) -> Wave:
    mono = load_stereo(file, rate).mean(axis=1)
    audible = np.flatnonzero(np.abs(mono) > 0.003 * np.abs(mono).max())
    if not len(audible):
        raise UserError(f"{file} is silent; remove it from the events")
    return _peak(mono[audible[0] : audible[-1] + 1])


@lru_cache(maxsize=16)
def load_stereo(file: Path, rate: int) -> Wave:
    """Read and resample a sound file: float64 (frames, 2).

    Raises:
        UserError: the file is not audio.
    """
    try:
        wave, file_rate = soundfile.read(file, dtype="float64", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{file} cannot be read as audio ({error}); remove or replace it") from None
    common = gcd(file_rate, rate)
    wave = resample_poly(wave, rate // common, file_rate // common, axis=0) if file_rate != rate else wave
    return wave[:, :2] if wave.shape[1] > 1 else np.repeat(wave, 2, axis=1)
