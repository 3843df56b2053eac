"""Compose scene clips of a background and events: scenes, locations, and the rendering of a clip.

This module writes no files: ``compose.py`` writes the corpora, ``sounds.py`` provides the sounds.
"""

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve

from local.synthetic.sounds import RecordedBackgrounds, RecordedEvents, SynthesisedEvents, band_noise, slow
from tagasc.utils.cli import from_values
from tagasc.utils.yaml_files import read_yaml

CITIES = ("barcelona", "helsinki", "lisbon", "london", "lyon", "milan", "paris", "prague", "stockholm", "vienna")

_SELF_NOISE = -75.0  # noise of the microphones, dB full scale

UNSEEN_CITY = "milan"  # has no training clip, as in TAU's fold 1


@dataclass(frozen=True)
class Scene:
    """The sound of a scene.

    Args:
        level: background level, dB full scale.
        reverberation: range of the reverberation time, seconds.
        noise: bands of the background: lowest and highest frequency in Hz, tilt in dB per octave, gain in dB.
        sway: variation of the background level: cycles per second, depth in dB.
        babble: gain of distant voices in the background, dB; None for no voices.
        hum: fundamental range in Hz and gain in dB of an engine or ventilation; None for no hum.
        rates: events per minute, by name.
    """

    level: float
    reverberation: tuple[float, float]
    noise: tuple[tuple[float, float, float, float], ...]
    sway: tuple[float, float]
    rates: dict[str, float]
    babble: float | None = None
    hum: tuple[float, float, float] | None = None


def _read_scenes(path: Path) -> dict[str, Scene]:
    records = read_yaml(path, "restore it from the repository")
    return {name: from_values(Scene, record, f"{path}, {name}") for name, record in records.items()}


SCENES = _read_scenes(Path(__file__).with_name("scenes.yaml"))


@dataclass(frozen=True)
class Location:
    """The acoustic character of a location.

    Attributes:
        name: ``<city>-<number>``.
        level: level added to the scene's, dB.
        tone: tilt in dB per octave; resonance centre in Hz, width in octaves, height in dB.
        reverberation: time to decay by 60 dB, seconds.
        wet: gain of the reverberation, relative to the direct sound.
        manner: seed shared by the scene's locations in this city.
        seed: seed of this location.
    """

    name: str
    level: float
    tone: tuple[float, float, float, float]
    reverberation: float
    wet: float
    manner: tuple[int, ...]
    seed: tuple[int, ...]

    def habit(self, event: str) -> float:
        """Return the factor on an event's rate in this location: the city's factor times the location's."""
        key = zlib.crc32(event.encode())
        city, location = (np.random.default_rng([*seed, key]).normal() for seed in (self.manner, self.seed))
        return float(np.exp(0.3 * city + 0.4 * location))


@dataclass(frozen=True)
class ClipPlan:
    """One scene clip to render.

    Attributes:
        number: index of the clip in the corpus, part of its seed.
        scene: name of the scene.
        location: where the clip is recorded.
        segment: index of the clip in its location.
        part: train, test or unused.
        background: indices of the recorded background and of the location's stretch in it.
    """

    number: int
    scene: str
    location: Location
    segment: int
    part: str
    background: tuple[int, int]

    @property
    def name(self) -> str:
        """File name in TAU's scheme."""
        return f"{self.scene}-{self.location.name}-{self.segment}-a.wav"


@dataclass
class Sources:
    """Sources of the sounds.

    Attributes:
        events: synthesised or recorded events.
        backgrounds: recorded backgrounds; None to synthesise them.
        stretches: number of locations per recorded background.
    """

    events: SynthesisedEvents | RecordedEvents
    backgrounds: RecordedBackgrounds | None = None
    stretches: list[int] = field(default_factory=list)


def location_of(scene: str, part: str, number: int, seed: int) -> Location:
    """Draw a location from its number and the seed, in a city of its part of the corpus."""
    random = np.random.default_rng([seed, 3, number])
    seen = [city for city in CITIES if city != UNSEEN_CITY]
    cities = {"train": seen, "test": CITIES, "unused": (UNSEEN_CITY,)}[part]
    city = str(random.choice(cities))
    manner = (seed, 4, CITIES.index(city), list(SCENES).index(scene))
    tone = tone_of(random)
    seconds = random.uniform(*SCENES[scene].reverberation)
    level, wet = random.normal(0, 3), random.uniform(0.1, 0.4)
    return Location(f"{city}-{number}", level, tone, seconds, wet, manner, (seed, 5, number))


def tone_of(random: np.random.Generator) -> tuple[float, float, float, float]:
    """Draw a tone: tilt in dB per octave; resonance centre in Hz, width in octaves, height in dB."""
    tilt, centre = random.normal(0, 1.0), float(np.exp(random.uniform(np.log(150), np.log(5000))))
    return tilt, centre, random.uniform(0.3, 1), random.normal(0, 4)


def rates_of(events: SynthesisedEvents | RecordedEvents, seed: int) -> dict[str, dict[str, float]]:
    """Return events per minute, by scene and event; for recorded events, draw them from the seed."""
    if isinstance(events, SynthesisedEvents):
        return {name: scene.rates for name, scene in SCENES.items()}
    random = np.random.default_rng([seed, 6])
    rates = {}
    for name in SCENES:
        frequent = random.choice(events.classes, min(3, len(events.classes)), replace=False)
        rates[name] = dict.fromkeys(events.classes, 1.0) | {str(e): float(random.uniform(6, 16)) for e in frequent}
    return rates


def render(
    plan: ClipPlan, rates: dict[str, float], seconds: float, rate: int, sources: Sources, seed: int
) -> tuple[np.ndarray, list]:
    """Render one clip.

    Args:
        plan: the clip.
        rates: events per minute, by name.
        seconds: duration, seconds.
        rate: sampling rate, Hz.
        sources: sources of the sounds.
        seed: seed of the corpus.

    Returns:
        Samples (frames, 2) in -1..1, and the events as (name, onset in s, duration in s, level in dB relative to the
        background), as text.
    """
    random = np.random.default_rng([seed, 7, plan.number])
    location, samples = plan.location, round(seconds * rate)
    if sources.backgrounds is None:
        background = synthesised_background(SCENES[plan.scene], samples, rate, random, location)
    else:
        background = sources.backgrounds.draw(*plan.background, sources.stretches[plan.background[0]], samples, random)
    pool = "scene_train" if plan.part == "train" else "scene_test"
    dry, send, events = np.zeros((samples, 2)), np.zeros(samples), []
    for name, per_minute in sorted(rates.items()):
        for _ in range(random.poisson(per_minute * location.habit(name) * seconds / 60)):
            wave = sources.events.draw(name, pool, random)
            onset = int(random.uniform(0, 0.9) * samples)
            wave = wave[: samples - onset]
            level, side = random.uniform(-3, 12), random.uniform(0.15, 0.85) * np.pi / 2
            wave = wave * 10 ** (level / 20) / loudness(wave)
            dry[onset : onset + len(wave)] += np.outer(wave, (np.cos(side), np.sin(side)))
            send[onset : onset + len(wave)] += wave
            events.append((name, f"{onset / rate:.3f}", f"{len(wave) / rate:.3f}", f"{level:.1f}"))
    mixed = toned(background + dry + location.wet * reverberation_of(send, location, rate), rate, location.tone)
    # The level is relative to the toned background, so that a location's tone does not change its loudness.
    gain = 10 ** ((SCENES[plan.scene].level + location.level) / 20)
    gain /= np.sqrt(np.mean(toned(background, rate, location.tone) ** 2))
    microphone = random.normal(size=mixed.shape) * 10 ** (_SELF_NOISE / 20)
    return (mixed * gain + microphone).clip(-1, 1), events


def synthesised_background(
    scene: Scene, samples: int, rate: int, random: np.random.Generator, location: Location, channels: int = 2
) -> np.ndarray:
    """Synthesise a background of noise bands, hum and voices, RMS 1: (samples, channels), which are correlated."""
    character = np.random.default_rng(location.seed)
    sides = []
    common = random.integers(2**62)
    for side in range(channels):
        parts = []
        for low, high, tilt, gain in scene.noise:
            shift = np.exp(0.15 * character.normal())
            shared = band_noise(np.random.default_rng(common), samples, rate, low * shift, high * shift, tilt)
            alone = band_noise(random, samples, rate, low * shift, high * shift, tilt)
            parts.append((shared + 0.7 * alone) * 10 ** (gain / 20))
        if scene.babble is not None:
            voices = band_noise(random, samples, rate, 250, 3000, -3)
            voices *= (1 + 0.5 * slow(random, samples, rate, 4)).clip(0)
            parts.append(voices * 10 ** (scene.babble / 20))
        if scene.hum is not None:
            pitch = np.random.default_rng(location.seed).uniform(*scene.hum[:2])
            pitch = pitch * (1 + 0.01 * slow(random, samples, rate, 1))
            phase = 2 * np.pi * np.cumsum(pitch) / rate
            hum = sum(np.sin(n * phase + side) / n for n in range(1, 9))
            parts.append(hum * 10 ** (scene.hum[2] / 20))
        sides.append(np.sum(parts, axis=0))
    cycles, depth = scene.sway
    background = np.stack(sides, axis=1) * 10 ** (depth * 0.5 * slow(random, samples, rate, cycles) / 20)[:, None]
    return background / np.sqrt(np.mean(background**2))


def loudness(wave: np.ndarray) -> float:
    """Compute the RMS of an event."""
    return np.sqrt(np.mean(wave**2)) + 1e-9


def reverberation_of(wave: np.ndarray, location: Location, rate: int) -> np.ndarray:
    """Reverberate (samples,) → (samples, 2): stereo noise that decays by 60 dB in the location's time, energy 1."""
    random = np.random.default_rng([*location.seed, 1])
    t = np.arange(max(int(location.reverberation * rate), 8)) / rate
    tail = random.normal(size=(len(t), 2)) * np.exp(-6.9 * t / location.reverberation)[:, None]
    tail /= np.sqrt((tail**2).sum(axis=0))
    return np.stack([fftconvolve(wave, tail[:, side])[: len(wave)] for side in (0, 1)], axis=1)


def toned(wave: np.ndarray, rate: int, tone: tuple[float, float, float, float]) -> np.ndarray:
    """Filter (samples, channels) by the tone of a location."""
    tilt, centre, width, height = tone
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(wave), 1 / rate), 20) / 1000)
    gain = tilt * octaves + height * np.exp(-(((octaves - np.log2(centre / 1000)) / width) ** 2))
    return np.fft.irfft(np.fft.rfft(wave, axis=0) * 10 ** (gain / 20)[:, None], len(wave), axis=0)
