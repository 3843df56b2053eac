"""Compose a clip of the tagging corpus: one or two events in a place that belongs to no scene.

Freesound clips and sound tracks are recorded somewhere: with an ambience, a reverberation and the tone of a place and
its equipment. A tagger that never heard events in an ambience does not find them in scenes.
"""

import numpy as np
from scipy.fft import next_fast_len

from local.synthetic.composition import (
    Location,
    Scene,
    Sources,
    loudness,
    reverberation_of,
    synthesised_background,
    tone_of,
    toned,
)

LONGEST_MARGIN = 0.3  # seconds of ambience before the events

# Level of an event above the ambience, dB: curated clips were chosen by a listener, noisy ones were not.
_LEVELS = {"train_curated": (0.0, 30.0), "train_noisy": (-3.0, 15.0), "test": (0.0, 30.0)}


def draw_place(random: np.random.Generator) -> tuple[Scene, Location]:
    """Draw a place at random, independent of the scenes and their locations."""
    noise = [(random.uniform(40, 80), float(np.exp(random.uniform(*np.log([600, 4000])))), random.uniform(-6, -3), 0.0)]
    if random.uniform() < 0.5:
        noise.append(
            (random.uniform(400, 1500), random.uniform(3000, 6000), random.uniform(-5, -3), random.uniform(-12, -8))
        )
    babble = random.uniform(-16, 0) if random.uniform() < 0.5 else None
    pitch = float(np.exp(random.uniform(*np.log([25, 180]))))
    hum = (pitch, 1.2 * pitch, random.uniform(-8, -3)) if random.uniform() < 0.5 else None
    seconds = float(np.exp(random.uniform(*np.log([0.1, 2.0]))))
    sway = (random.uniform(0.2, 0.6), random.uniform(1, 4))
    scene = Scene(0.0, (seconds, seconds), tuple(noise), sway, {}, babble, hum)
    seed = (int(random.integers(2**31)),)
    return scene, Location("", 0.0, tone_of(random), seconds, random.uniform(0.1, 0.4), seed, seed)


def render_tagging_clip(
    part: str, labels: list[str], longest: float, rate: int, sources: Sources, random: np.random.Generator
) -> np.ndarray:
    """Render one clip.

    Args:
        part: train_curated, train_noisy or test.
        labels: classes of its events.
        longest: longest duration, seconds.
        rate: sampling rate, Hz.
        sources: sources of the sounds.
        random: random generator of the clip.

    Returns:
        Samples in -1..1, (samples,).
    """
    pool = "tagging_test" if part == "test" else "tagging_train"
    waves = [sources.events.draw(name, pool, random) for name in labels]
    margins = [int(rate * random.uniform(0.05, LONGEST_MARGIN)) for _ in waves]
    length = max(len(wave) + margin for wave, margin in zip(waves, margins, strict=True)) + int(rate * 0.05)
    # A Fourier transform of a prime length takes ten times as long.
    samples = min(next_fast_len(max(length, int(0.3 * rate))), int(longest * rate))
    scene, place = draw_place(random)
    events = np.zeros(samples)
    for wave, margin in zip(waves, margins, strict=True):
        wave = wave[: samples - margin]
        events[margin : margin + len(wave)] += wave * 10 ** (random.uniform(*_LEVELS[part]) / 20) / loudness(wave)
    wet = place.wet * reverberation_of(events, place, rate)[:, 0]
    background = synthesised_background(scene, samples, rate, random, place, channels=1)[:, 0]
    clip = toned((background + events + wet)[:, None], rate, place.tone)[:, 0]
    return clip * random.uniform(0.2, 0.9) / (np.abs(clip).max() + 1e-9)
