"""The recipe's tagger as an ONNX graph, from the waveform of a scene clip to its tag vector.

It does what ``tagasc.tagger.inference.Ensemble.tag_scenes`` does. The spectrogram is a product with the windowed
Fourier matrix: onnxruntime's STFT takes hundreds of times as long on a CPU. Batch and length are free.
"""

from copy import deepcopy

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchaudio.transforms import Resample

from tagasc.export.graph import Graph, array
from tagasc.tagger.clips import padded_frames
from tagasc.tagger.features import MelConfig, MelPower
from tagasc.tagger.inference import Ensemble
from tagasc.tagger.network import TaggerNetwork
from tagasc.utils.errors import UserError

_MULTIPLE = padded_frames(1)


def tagger_model(ensemble: Ensemble, sampling_rate: int, channels: int, frames: int) -> onnx.ModelProto:
    """Return the graph from ``waveform``, (batch, length, channels) at ``sampling_rate``, to ``tags``, (batch, c).

    Args:
        ensemble: the tagger.
        sampling_rate: rate of the scene clips, Hz.
        channels: channels of the scene clips.
        frames: length of the scene clips, sample frames.

    Raises:
        UserError: the clips are shorter than half a window of the spectrogram.
    """
    if frames * ensemble.mel.sampling_rate // sampling_rate <= ensemble.mel.n_fft // 2:
        raise UserError(
            f"clips of {frames / sampling_rate:g} s are shorter than half of the tagger's window (n_fft:"
            f" {ensemble.mel.n_fft}); export a system without tags, or train a tagger with a smaller n_fft"
        )
    graph = Graph()
    mono = graph.add("ReduceMean", "waveform", graph.integers(2), keepdims=0)
    power = _mel_power(graph, _resampled(graph, mono, sampling_rate, ensemble.mel.sampling_rate), ensemble.mel)
    probabilities = []
    for pad in ensemble.pads:
        level = _normalised_level(graph, _padded(graph, power, pad))
        image = graph.add("Unsqueeze", level, graph.integers(1))
        probabilities += [_sigmoid(graph, _logits(graph, image, network)) for network in ensemble.networks]
    graph.rename(graph.add("Mean", *probabilities), "tags")
    outputs = {"tags": (np.float32, ("batch", len(ensemble.classes)))}
    return graph.model({"waveform": ("batch", "length", channels)}, outputs)


def _resampled(graph: Graph, mono: str, rate: int, wanted: int) -> str:
    """Add torchaudio's resampling, a strided convolution with its filters: (batch, length) → (batch, samples)."""
    if rate == wanted:
        return mono
    resample = Resample(rate, wanted)
    divisor = resample.gcd
    step, phases = rate // divisor, wanted // divisor
    pads = graph.integers(0, 0, resample.width, 0, 0, resample.width + step)
    wave = graph.add("Pad", graph.add("Unsqueeze", mono, graph.integers(1)), pads)
    rows = graph.add("Conv", wave, graph.constant(array(resample.kernel)), strides=[step])
    samples = graph.add("Reshape", graph.add("Transpose", rows, perm=[0, 2, 1]), graph.integers(0, -1))
    length = graph.slice(graph.add("Shape", mono), 1, 2, 0)
    length = graph.add("Add", graph.add("Mul", length, graph.integers(phases)), graph.integers(step - 1))
    length = graph.add("Div", length, graph.integers(step))
    return graph.add("Slice", samples, graph.integers(0), length, graph.integers(1))


def _mel_power(graph: Graph, mono: str, mel: MelConfig) -> str:
    """Add the centred mel power spectrogram: (batch, samples) → (batch, mels, frames)."""
    spectrogram = MelPower(mel)
    bank = array(spectrogram.bank)  # (mels, bins)
    heard = np.flatnonzero(bank.any(axis=0))
    time, half = np.arange(mel.n_fft), mel.n_fft // 2
    angle = 2 * np.pi * ((heard[:, None] * time) % mel.n_fft) / mel.n_fft
    window = array(spectrogram.window).astype(np.float64)
    basis = np.concatenate([np.cos(angle), np.sin(angle)]) * window
    wave = graph.add("Unsqueeze", mono, graph.integers(1))
    wave = graph.add("Pad", wave, graph.integers(0, 0, half, 0, 0, half), mode="reflect")
    spectrum = graph.add("Conv", wave, graph.constant(basis[:, None]), strides=[mel.hop])
    squares = graph.add("Mul", spectrum, spectrum)
    # The mel bank adds real and imaginary parts along with the bins.
    return graph.add("MatMul", graph.constant(np.concatenate([bank[:, heard]] * 2, axis=1)), squares)


def _padded(graph: Graph, power: str, pad: int) -> str:
    """Add silent frames: ``pad`` before, and after the clip at least as many, up to a multiple of 32."""
    frames = graph.slice(graph.add("Shape", power), 2, 3, 0)
    rounded = graph.add("Add", frames, graph.integers(2 * pad + _MULTIPLE - 1))
    total = graph.add("Mul", graph.add("Div", rounded, graph.integers(_MULTIPLE)), graph.integers(_MULTIPLE))
    after = graph.add("Sub", graph.add("Sub", total, frames), graph.integers(pad))
    return graph.add("Pad", power, graph.concat(graph.integers(0, 0, pad, 0, 0), after, axis=0))


def _normalised_level(graph: Graph, power: str) -> str:
    """Add decibels and the normalisation of each clip, as in ``tagasc.tagger.features``."""
    axes = graph.integers(1, 2)
    log = graph.add("Log", graph.add("Max", power, graph.constant(1e-10)))
    level = graph.add("Mul", log, graph.constant(10 / np.log(10)))
    floor = graph.add("Sub", graph.add("ReduceMax", level, axes, keepdims=1), graph.constant(80.0))
    level = graph.add("Max", level, floor)
    centred = graph.add("Sub", level, graph.add("ReduceMean", level, axes, keepdims=1))
    variance = graph.add("ReduceMean", graph.add("Mul", centred, centred), axes, keepdims=1)
    deviation = graph.add("Add", graph.add("Sqrt", variance), graph.constant(1e-7))
    return graph.add("Div", centred, deviation)


def _logits(graph: Graph, image: str, network: TaggerNetwork) -> str:
    """Add one network's curated head: (batch, 1, mels, frames) → (batch, classes)."""
    conv, norm, *rest = deepcopy(network.stem).eval()
    x = graph.layers(image, _folded(conv, norm), *rest)
    for block in (block for stage in network.stages for block in stage):
        y = graph.add("Relu", graph.layers(x, _folded(block.conv1, block.bn1)))
        y = graph.layers(y, _folded(block.conv2, block.bn2))
        shortcut = x if block.downsample is None else graph.layers(x, _folded(*block.downsample))
        x = graph.add("Relu", graph.add("Add", y, shortcut))
    return graph.layers(graph.add("ReduceMax", x, graph.integers(2, 3), keepdims=0), network.curated)


def _sigmoid(graph: Graph, logits: str) -> str:
    """Add 1 / (1 + exp(-x)). onnxruntime's Sigmoid errs by 1e-7, too much for the logarithm of a small probability."""
    exponential = graph.add("Exp", graph.add("Neg", logits))
    return graph.add("Reciprocal", graph.add("Add", exponential, graph.constant(1.0)))


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    with torch.no_grad():
        return fuse_conv_bn_eval(deepcopy(conv).eval(), deepcopy(norm).eval())
