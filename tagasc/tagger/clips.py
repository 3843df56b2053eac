"""The tagger's clips: packed audio with labels, spectrogram crops made on the device, and batches of equal length."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from tagasc.audio.packed import PackedAudio
from tagasc.audio.store import AudioStore
from tagasc.tagger.features import MelConfig, MelPower
from tagasc.utils.device import to_device
from tagasc.utils.errors import UserError

_FRAME_MULTIPLE = 32  # whole clips are padded to a multiple of this, in spectrogram frames


class TaggedClips:
    """The clips of one split of a tagging corpus.

    Attributes:
        packed: the packed folder.
        classes: names of the classes.
        store: the audio, mono.
        truth: float32 (clips, classes), 1 where the class is present.
        frames: int64 (clips,), spectrogram frames per clip.
    """

    def __init__(
        self, folder: Path, classes: list[str] | None, mel: MelConfig, device: torch.device, labelled: bool = True
    ) -> None:
        """Open a packed folder.

        Args:
            folder: the packed folder.
            classes: names of the classes; None: the folder's own labels in ASCII order.
            mel: the spectrogram.
            device: device of the audio and of its spectrograms.
            labelled: require a label on every clip.

        Raises:
            UserError: the audio has another sampling rate than ``mel`` or several channels, a clip is empty or lacks a
                label, or a label is not in ``classes``.
        """
        self.packed = PackedAudio(folder)
        if self.packed.sampling_rate != mel.sampling_rate or self.packed.channels != 1:
            raise UserError(
                f"{folder} has {self.packed.sampling_rate} Hz and {self.packed.channels} channel(s), but the tagger"
                f" needs {mel.sampling_rate} Hz mono; set mel.sampling_rate or prepare the audio again"
            )
        require_samples(self.packed)
        self.classes = classes or sorted({label for clip in self.packed.clips for label in clip.labels})
        self.truth = label_matrix(self.packed, self.classes, labelled)
        self.frames = mel.frames(self.packed.lengths)
        self.store = AudioStore(self.packed, device)

    def __len__(self) -> int:
        return len(self.packed)


def label_matrix(packed: PackedAudio, classes: list[str], labelled: bool = True) -> Tensor:
    """Return labels, float32 (clips, classes), 1 where the class is present; for errors see ``TaggedClips``."""
    column = {name: number for number, name in enumerate(classes)}
    truth = torch.zeros(len(packed), len(classes))
    for number, clip in enumerate(packed.clips):
        if labelled and not clip.labels:
            raise UserError(f"{packed.folder}: clip {clip.id} has no label; label it or leave it out")
        for label in clip.labels:
            if label not in column:
                raise UserError(
                    f"{packed.folder}: clip {clip.id} has the label {label}, which no curated clip has; fix the labels"
                )
            truth[number, column[label]] = 1
    return truth


def require_samples(packed: PackedAudio) -> None:
    """Raise UserError if a clip has no samples; one sample is enough for tagging."""
    empty = [clip.id for clip in packed.clips if clip.frames == 0]
    if empty:
        raise UserError(f"{packed.folder}: clip {empty[0]} has no samples; leave it out")


def crop_spectrograms(clips: TaggedClips, indices: Tensor, starts: Tensor, frames: int, mel_power: MelPower) -> Tensor:
    """Compute ``frames`` spectrogram frames of clips: power (batch, mels, frames).

    Frames inside a clip equal those of the whole clip's centred, reflecting spectrogram. Frames outside it are zero.

    Args:
        clips: the clips.
        indices: int64 (batch,), clips of the batch.
        starts: int64 (batch,), first frame of each crop; may be negative.
        frames: length of the crops; may exceed that of a clip.
        mel_power: the spectrogram.
    """
    mel = mel_power.config
    wave = clips.store.windows(indices, starts * mel.hop - mel.n_fft // 2, mel.samples(frames))[:, :, 0]
    positions = starts.unsqueeze(1) + torch.arange(frames)
    inside = (positions >= 0) & (positions < clips.frames[indices].unsqueeze(1))
    return mel_power(wave) * to_device(inside.unsqueeze(1), wave.device)


@dataclass(frozen=True)
class ClipPool:
    """Clips that a stream of the training draws from, of one or several corpora, numbered through all of them.

    Attributes:
        corpora: the clips.
        target: float32 (clips, classes), their targets in this stream.
        members: int64 (n,), the clips that the stream draws from. Mixup draws its partners uniformly from them.
    """

    corpora: tuple[TaggedClips, ...]
    target: Tensor
    members: Tensor

    @cached_property
    def frames(self) -> Tensor:
        """Spectrogram frames per clip, int64 (clips,)."""
        return torch.cat([clips.frames for clips in self.corpora])

    def crops(self, indices: Tensor, starts: Tensor, frames: int, mel_power: MelPower) -> Tensor:
        """Compute ``frames`` spectrogram frames of clips, (batch, mels, frames); see ``crop_spectrograms``."""
        power = torch.empty(len(indices), mel_power.config.mels, frames, device=mel_power.bank.device)
        first = 0
        for clips in self.corpora:
            rows = ((indices >= first) & (indices < first + len(clips))).nonzero().flatten()
            if len(rows):
                own = crop_spectrograms(clips, indices[rows] - first, starts[rows], frames, mel_power)
                power[to_device(rows, power.device)] = own
            first += len(clips)
        return power


def padded_frames(frames: Tensor | int) -> Tensor | int:
    """Round numbers of frames up to the next multiple of 32."""
    return (frames + _FRAME_MULTIPLE - 1) // _FRAME_MULTIPLE * _FRAME_MULTIPLE


def group_by_padded_length(frames: Tensor, batch: int) -> Iterator[tuple[Tensor, int]]:
    """Group clips for inference; yield their indices and the padded number of frames.

    Padding depends on a clip's own length only, so its tags do not depend on the other clips. To bound memory, a batch
    holds at most ``batch`` clips and at most ``512 * batch`` frames, but at least one clip.
    """
    padded = padded_frames(frames)
    for length in padded.unique().tolist():
        for indices in torch.nonzero(padded == length).flatten().split(max(1, min(batch, batch * 512 // length))):
            yield indices, length


def group_by_length(packed: PackedAudio, batch: int) -> list[tuple[int, Tensor]]:
    """Group clips of equal length; return (length in samples, indices) of each group.

    To bound memory, a group holds at most ``batch`` clips and at most ``10 * batch`` seconds, but at least one clip.
    """
    longest = batch * 10 * packed.sampling_rate
    return [
        (length, indices)
        for length in packed.lengths.unique().tolist()
        for indices in torch.nonzero(packed.lengths == length).flatten().split(max(1, min(batch, longest // length)))
    ]
