"""Composes scene clips out of a background and events: scenes, locations, and how one clip is rendered.

It knows nothing of corpora on disk; ``compose.py`` lays those out, ``sounds.py`` gives the sounds.
"""

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from scipy.signal import fftconvolve

from local.synthetic.sounds import RecordedBackgrounds, RecordedEvents, SynthesisedEvents, band_noise, slow
from tagasc.utils.cli import from_values

CITIES = ("barcelona", "helsinki", "lisbon", "london", "lyon", "milan", "paris", "prague", "stockholm", "vienna")

_SELF_NOISE = -75.0  # of the microphones, dB full scale

UNSEEN_CITY = "milan"  # no training clip is from there, as in TAU's fold 1


@dataclass(frozen=True)
class Scene:
    """How a scene sounds.

    Args:
        level: of the background, dB full scale.
        reverberation: range of the reverberation time, seconds.
        noise: bands of the background: lowest and highest frequency in Hz, tilt in dB an octave, gain in dB.
        sway: how the background's level moves: turns a second, depth in dB.
        babble: gain in dB of distant voices in the background, or None.
        hum: fundamental range in Hz and gain in dB of an engine or ventilation, or None.
        rates: events a minute.
    """

    level: float
    reverberation: tuple[float, float]
    noise: tuple[tuple[float, float, float, float], ...]
    sway: tuple[float, float]
    rates: dict[str, float]
    babble: float | None = None
    hum: tuple[float, float, float] | None = None


def _read_scenes(path: Path) -> dict[str, Scene]:
    records = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {name: from_values(Scene, record, f"{path}, {name}") for name, record in records.items()}


SCENES = _read_scenes(Path(__file__).with_name("scenes.yaml"))


@dataclass(frozen=True)
class Location:
    """A place's acoustic character.

    Attributes:
        name: ``<city>-<number>``.
        level: dB, added to the scene's.
        tone: tilt in dB an octave; a resonance's centre in Hz, width in octaves, height in dB.
        reverberation: time to fall by 60 dB, in seconds.
        wet: level of the reverberation beside the direct sound.
        manner: seed of what the scene's locations in this city have in common.
        seed: seed of the location's own.
    """

    name: str
    level: float
    tone: tuple[float, float, float, float]
    reverberation: float
    wet: float
    manner: tuple[int, ...]
    seed: tuple[int, ...]

    def habit(self, event: str) -> float:
        """How much more often than in the scene at large an event comes here: the city's way times the location's."""
        key = zlib.crc32(event.encode())
        city, own = (np.random.default_rng([*seed, key]).normal() for seed in (self.manner, self.seed))
        return float(np.exp(0.3 * city + 0.4 * own))


@dataclass(frozen=True)
class ClipPlan:
    """One scene clip to render."""

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
    """Where sounds come from."""

    events: SynthesisedEvents | RecordedEvents
    backgrounds: RecordedBackgrounds | None = None
    stretches: list[int] = field(default_factory=list)


def location_of(scene: str, part: str, number: int, seed: int) -> Location:
    """The location of a number: drawn from the seed, in a city that its part of the corpus has."""
    random = np.random.default_rng([seed, 3, number])
    seen = [city for city in CITIES if city != UNSEEN_CITY]
    cities = {"train": seen, "test": CITIES, "unused": (UNSEEN_CITY,)}[part]
    city = str(random.choice(cities))
    manner = (seed, 4, CITIES.index(city), list(SCENES).index(scene))
    tone = (
        random.normal(0, 1.0),
        float(np.exp(random.uniform(np.log(150), np.log(5000)))),
        random.uniform(0.3, 1),
        random.normal(0, 4),
    )
    seconds = random.uniform(*SCENES[scene].reverberation)
    level, wet = random.normal(0, 3), random.uniform(0.1, 0.4)
    return Location(f"{city}-{number}", level, tone, seconds, wet, manner, (seed, 5, number))


def rates_of(events: SynthesisedEvents | RecordedEvents, seed: int) -> dict[str, dict[str, float]]:
    """Events a minute in each scene: designed for synthesised events, drawn from the seed for recorded ones."""
    if isinstance(events, SynthesisedEvents):
        return {name: scene.rates for name, scene in SCENES.items()}
    random = np.random.default_rng([seed, 6])
    rates = {}
    for name in SCENES:
        own = random.choice(events.classes, min(3, len(events.classes)), replace=False)
        rates[name] = {event: 1.0 for event in events.classes} | {str(e): float(random.uniform(6, 16)) for e in own}
    return rates


def render(
    plan: ClipPlan, rates: dict[str, float], seconds: float, rate: int, sources: Sources, seed: int
) -> tuple[np.ndarray, list]:
    """One clip: stereo samples, and its events as (name, onset, duration, level relative to the background)."""
    random = np.random.default_rng([seed, 7, plan.number])
    place, samples = plan.location, round(seconds * rate)
    if sources.backgrounds is None:
        background = _synthesised_background(SCENES[plan.scene], samples, rate, random, place)
    else:
        background = sources.backgrounds.draw(*plan.background, sources.stretches[plan.background[0]], samples, random)
    pool = "scene_train" if plan.part == "train" else "scene_test"
    dry, send, heard = np.zeros((samples, 2)), np.zeros(samples), []
    for name, per_minute in sorted(rates.items()):
        for _ in range(random.poisson(per_minute * place.habit(name) * seconds / 60)):
            wave = sources.events.draw(name, pool, random)
            onset = int(random.uniform(0, 0.9) * samples)
            wave = wave[: samples - onset]
            level, side = random.uniform(-3, 12), random.uniform(0.15, 0.85) * np.pi / 2
            wave = wave * 10 ** (level / 20) / (np.sqrt(np.mean(wave**2)) + 1e-9)
            dry[onset : onset + len(wave)] += np.outer(wave, (np.cos(side), np.sin(side)))
            send[onset : onset + len(wave)] += wave
            heard.append((name, f"{onset / rate:.3f}", f"{len(wave) / rate:.3f}", f"{level:.1f}"))
    echo = _reverberation(place, rate)
    wet = np.stack([fftconvolve(send, echo[:, side])[:samples] for side in (0, 1)], axis=1)
    mixed = _toned(background + dry + place.wet * wet, rate, place.tone)
    # The level is that of the background as toned, so that a location's tone does not change its loudness.
    loud = 10 ** ((SCENES[plan.scene].level + place.level) / 20)
    loud /= np.sqrt(np.mean(_toned(background, rate, place.tone) ** 2))
    microphone = random.normal(size=mixed.shape) * 10 ** (_SELF_NOISE / 20)
    return (mixed * loud + microphone).clip(-1, 1), heard


def _synthesised_background(
    scene: Scene, samples: int, rate: int, random: np.random.Generator, place: Location
) -> np.ndarray:
    """Stereo background, RMS 1: noise bands, hum and distant voices; its two sides are partly alike."""
    own = np.random.default_rng(place.seed)
    sides = []
    common = random.integers(2**62)
    for side in range(2):
        parts = []
        for low, high, tilt, gain in scene.noise:
            shift = np.exp(0.15 * own.normal())
            shared = band_noise(np.random.default_rng(common), samples, rate, low * shift, high * shift, tilt)
            alone = band_noise(random, samples, rate, low * shift, high * shift, tilt)
            parts.append((shared + 0.7 * alone) * 10 ** (gain / 20))
        if scene.babble is not None:
            voices = band_noise(random, samples, rate, 250, 3000, -3)
            voices *= (1 + 0.5 * slow(random, samples, rate, 4)).clip(0)
            parts.append(voices * 10 ** (scene.babble / 20))
        if scene.hum is not None:
            pitch = np.random.default_rng(place.seed).uniform(*scene.hum[:2])
            pitch = pitch * (1 + 0.01 * slow(random, samples, rate, 1))
            phase = 2 * np.pi * np.cumsum(pitch) / rate
            hum = sum(np.sin(n * phase + side) / n for n in range(1, 9))
            parts.append(hum * 10 ** (scene.hum[2] / 20))
        sides.append(np.sum(parts, axis=0))
    turns, depth = scene.sway
    background = np.stack(sides, axis=1) * 10 ** (depth * 0.5 * slow(random, samples, rate, turns) / 20)[:, None]
    return background / np.sqrt(np.mean(background**2))


def _reverberation(place: Location, rate: int) -> np.ndarray:
    """A location's late reverberation: stereo noise falling by 60 dB in its reverberation time, energy 1."""
    random = np.random.default_rng([*place.seed, 1])
    t = np.arange(max(int(place.reverberation * rate), 8)) / rate
    tail = random.normal(size=(len(t), 2)) * np.exp(-6.9 * t / place.reverberation)[:, None]
    return tail / np.sqrt((tail**2).sum(axis=0))


def _toned(wave: np.ndarray, rate: int, tone: tuple[float, float, float, float]) -> np.ndarray:
    tilt, centre, width, height = tone
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(wave), 1 / rate), 20) / 1000)
    gain = tilt * octaves + height * np.exp(-(((octaves - np.log2(centre / 1000)) / width) ** 2))
    return np.fft.irfft(np.fft.rfft(wave, axis=0) * 10 ** (gain / 20)[:, None], len(wave), axis=0)
