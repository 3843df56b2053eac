"""A synthesised example clip: it shows that a bundle works, and nothing about scenes."""

import numpy as np

from tagasc.bundle.audio import Contract


def synthesise(contract: Contract, seed: int = 2019) -> np.ndarray:
    """Return a clip of the contract's form, int16 (frames, channels): coloured noise and a few struck bells."""
    random = np.random.default_rng(seed)
    spectrum = np.fft.rfft(random.normal(size=(contract.frames, contract.channels)), axis=0)
    pitch = np.arange(len(spectrum))[:, None] + 8.0
    noise = np.fft.irfft(spectrum / np.sqrt(pitch), contract.frames, axis=0)
    wave = 0.05 * noise / noise.std()
    time = np.arange(contract.frames) / contract.sampling_rate
    for start in np.linspace(0.1, 0.8, 4) * contract.seconds:
        since = time - start
        bell = np.exp(-6 * since.clip(0)) * np.sin(2 * np.pi * random.uniform(400, 1200) * since) * (since >= 0)
        wave += 0.15 * bell[:, None] * random.uniform(0.5, 1, contract.channels)
    return np.rint(np.clip(wave, -0.99, 0.99) * 32767).astype(np.int16)
