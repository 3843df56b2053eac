"""Any audio-classification model of Hugging Face's ``transformers`` as a tagger.

The package is optional. A model is a folder, or a name on the Hub. Only weights in safetensors are read, they must be
all that the model has, and a model's own code is never run. Computation is in float32, whatever the file holds.

The model's configuration decides the activation: sigmoid for ``multi_label_classification``, else softmax. Some
multi-label models lack this entry; give the option ``sigmoid`` for these.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tagasc.audio.packed import PackedAudio
from tagasc.audio.store import AudioStore
from tagasc.audio.waveform import ToMono
from tagasc.tagger.clips import group_by_length, require_samples
from tagasc.utils.errors import UserError
from tagasc.utils.log import log, progress

_INSTALL = "pip install --constraint constraints.txt transformers (into the Python that runs the recipe)"
_TRAINING_ONLY = "masked_spec_embed"  # stands for masked frames in training; published files may lack it


class HuggingFaceTagger:
    """A tag source; see ``tagasc.tagger.sources.TagSource``.

    Attributes:
        classes: the model's labels, in the order of its outputs.
        activation: ``sigmoid`` or ``softmax``.
        sampling_rate: sampling rate of the model's feature extractor, in Hz; scene clips are resampled to it.
    """

    def __init__(self, name: str, device: torch.device, batch: int = 16, activation: str = "auto") -> None:
        """Load the model.

        Raises:
            UserError: the package or the model is missing, or the model needs its own code, has no safetensors, lacks
                weights or has others, or has fewer than two classes.
        """
        try:
            from transformers import AutoFeatureExtractor, AutoModelForAudioClassification
        except ImportError:
            raise UserError(f"--tags-from hf:{name} needs the package transformers; {_INSTALL}") from None
        try:
            self.extractor = AutoFeatureExtractor.from_pretrained(name, trust_remote_code=False)
            model, loaded = AutoModelForAudioClassification.from_pretrained(
                name, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
            model = model.float()
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UserError(f"--tags-from hf:{name}: cannot be loaded ({' '.join(str(error).split())[:160]})") from None
        _require_all_weights(name, loaded)
        self.name, self.device, self.batch = name, device, batch
        self.model = model.to(device).eval()
        self.classes = [str(model.config.id2label[n]) for n in range(model.config.num_labels)]
        self.sampling_rate = int(self.extractor.sampling_rate)
        kind = model.config.problem_type
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2 or kind == "regression":
            raise UserError(
                f"--tags-from hf:{name}: its outputs must be at least two distinct classes; choose another model"
            )
        configured = "sigmoid" if kind == "multi_label_classification" else "softmax"
        self.activation = configured if activation == "auto" else activation
        log.info("hf:%s: %d classes, %d Hz, %s", name, len(self.classes), self.sampling_rate, self.activation)
        if kind is None and activation == "auto":
            log.warning(
                "hf:%s: its configuration has no problem_type; if it is multi-label, give --activation sigmoid", name
            )

    def input_hashes(self) -> dict[str, str]:
        """Return one hash of weights, configuration, feature extractor and activation."""
        sha256 = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            sha256.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            sha256.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        for text in (self.model.config.to_json_string(), self.extractor.to_json_string(), self.activation):
            sha256.update(text.encode())
        return {"tag source": sha256.hexdigest()}

    @torch.inference_mode()
    def tags(self, packed: PackedAudio) -> np.ndarray:
        """Return tag probabilities, float32 (clips, classes): mean of the channels, resampled, whole clip.

        The feature extractor may truncate clips; many do after 10 s.
        """
        require_samples(packed)
        store = AudioStore(packed, self.device)
        to_rate = ToMono(packed.sampling_rate, self.sampling_rate).to(self.device)
        values = np.zeros((len(packed), len(self.classes)), np.float32)
        groups = group_by_length(packed, self.batch)
        for length, indices in progress(groups, f"tagging {packed.folder.name}", total=len(groups)):
            mono = to_rate(store.windows(indices, torch.zeros_like(indices), length))
            values[indices.numpy()] = self._probabilities(list(mono.cpu().numpy()), packed)
        return values

    def _probabilities(self, waves: Sequence[np.ndarray], packed: PackedAudio) -> np.ndarray:
        try:  # clips of one length, so the extractor only pads to the length that the model expects
            inputs = self.extractor(waves, sampling_rate=self.sampling_rate, return_tensors="pt")
            logits: Tensor = self.model(**inputs.to(self.device)).logits.float()
        except (RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"{packed.folder}: hf:{self.name} cannot tag clips of {len(waves[0])} samples ({reason})"
            ) from None
        values = logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(dim=1)
        if not bool(values.isfinite().all()):
            raise UserError(f"{packed.folder}: hf:{self.name} returns values that are not finite; choose another model")
        return values.cpu().numpy()


def _require_all_weights(name: str, loaded: Mapping[str, Collection]) -> None:
    """Refuse a model that transformers filled up with random weights, or only partly read.

    Raises:
        UserError: the model's file lacks weights, or holds weights of another model.
    """
    for kind, problem in (
        ("missing_keys", "its file lacks weights that would be random"),
        ("mismatched_keys", "its file holds weights of another shape"),
        ("unexpected_keys", "its file holds weights that this model does not have"),
        ("error_msgs", "it is damaged"),
    ):
        if found := sorted(key for key in map(str, loaded.get(kind, ())) if not key.endswith(_TRAINING_ONLY)):
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            raise UserError(
                f"--tags-from hf:{name}: {problem}: {', '.join(found[:3])}{more}; choose a model that was trained for"
                " audio classification"
            )
