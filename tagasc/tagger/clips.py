"""The tagger's clips: labels beside packed audio, and spectrograms of crops and of whole clips, made on the device."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from tagasc.audio.packed import PackedAudio
from tagasc.audio.store import AudioStore
from tagasc.tagger.features import MelConfig, MelPower
from tagasc.utils.device import to_device
from tagasc.utils.errors import UserError

_FRAME_MULTIPLE = 32  # whole clips are padded to a multiple of so many spectrogram frames


class TaggedClips:
    """Clips of one tagging set.

    Attributes:
        classes: names of the classes.
        store: the audio, mono.
        truth: float32 (clips, classes), 1 where the class is present.
        frames: int64 (clips,), spectrogram frames of each clip.
    """

    def __init__(
        self, folder: Path, classes: list[str] | None, mel: MelConfig, device: torch.device, labelled: bool = True
    ) -> None:
        """Open a packed folder; ``classes`` None takes the folder's own labels in ASCII order.

        Raises:
            UserError: another sampling rate than the spectrogram's, several channels, an empty clip, a label not in
                ``classes``, or, if they are to be ``labelled``, a clip without label.
        """
        self.packed = PackedAudio(folder)
        if self.packed.sampling_rate != mel.sampling_rate or self.packed.channels != 1:
            raise UserError(
                f"{folder} has {self.packed.sampling_rate} Hz and {self.packed.channels} channel(s), the tagger takes"
                f" {mel.sampling_rate} Hz mono; set mel.sampling_rate or prepare the audio"
            )
        require_samples(self.packed)
        self.classes = classes or sorted({label for clip in self.packed.clips for label in clip.labels})
        self.truth = label_matrix(self.packed, self.classes, labelled)
        self.frames = mel.frames(self.packed.lengths)
        self.store = AudioStore(self.packed, device)

    def __len__(self) -> int:
        return len(self.packed)


def label_matrix(packed: PackedAudio, classes: list[str], labelled: bool = True) -> Tensor:
    """The clips' labels: float32 (clips, classes), 1 where the class is present; for the errors see ``TaggedClips``."""
    place = {name: number for number, name in enumerate(classes)}
    truth = torch.zeros(len(packed), len(classes))
    for number, clip in enumerate(packed.clips):
        if labelled and not clip.labels:
            raise UserError(f"{packed.folder}: clip {clip.id} has no label; label it or leave it out")
        for label in clip.labels:
            if label not in place:
                raise UserError(
                    f"{packed.folder}: clip {clip.id} is labelled {label}, which no curated clip is; mend the labels"
                )
            truth[number, place[label]] = 1
    return truth


def require_samples(packed: PackedAudio) -> None:
    """Raises UserError if a clip has no samples; a clip of one sample is long enough to be tagged."""
    empty = [clip.id for clip in packed.clips if clip.frames == 0]
    if empty:
        raise UserError(f"{packed.folder}: clip {empty[0]} has no samples; leave it out")


def crop_spectrograms(clips: TaggedClips, which: Tensor, starts: Tensor, frames: int, power: MelPower) -> Tensor:
    """Cut ``frames`` spectrogram frames out of clips: (batch, mels, frames), power.

    A start may be negative, a crop longer than its clip: frames outside the clip are zero. Frames inside are those of
    the whole clip's centred, reflecting spectrogram.
    """
    mel = power.config
    wave = clips.store.windows(which, starts * mel.hop - mel.n_fft // 2, mel.samples(frames))[:, :, 0]
    place = starts.unsqueeze(1) + torch.arange(frames)
    inside = (place >= 0) & (place < clips.frames[which].unsqueeze(1))
    return power(wave) * to_device(inside.unsqueeze(1), wave.device)


def padded_frames(frames: Tensor | int) -> Tensor | int:
    """The ladder of padded lengths: the next multiple of 32 frames, a matter of the clip's own length alone."""
    return (frames + _FRAME_MULTIPLE - 1) // _FRAME_MULTIPLE * _FRAME_MULTIPLE


def group_by_padded_length(frames: Tensor, batch: int) -> Iterator[tuple[Tensor, int]]:
    """Group clips for inference: yields positions and the padded number of frames.

    The latter depends on a clip's own length only, so its tags never depend on the clips beside it. Batches hold at
    most ``batch`` clips, and fewer of long ones: no more frames than ``batch`` crops of 512, so that memory is bounded
    whatever the lengths are.
    """
    padded = padded_frames(frames)
    for length in padded.unique().tolist():
        for places in torch.nonzero(padded == length).flatten().split(max(1, min(batch, batch * 512 // length))):
            yield places, length


def group_by_length(packed: PackedAudio, batch: int) -> list[tuple[int, Tensor]]:
    """Clips in groups of one length in samples: (length, positions).

    Groups hold at most ``batch`` clips, and fewer of long ones: no more samples than ``batch`` clips of 10 s.
    """
    longest = batch * 10 * packed.sampling_rate
    return [
        (length, places)
        for length in packed.lengths.unique().tolist()
        for places in torch.nonzero(packed.lengths == length).flatten().split(max(1, min(batch, longest // length)))
    ]
