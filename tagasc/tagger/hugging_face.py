"""Any audio-classification model of Hugging Face's ``transformers`` as a tagger.

The package is an optional one. A model is a folder, or a name on the Hub; only its weights in safetensors are read, and
code that comes with a model is never run.

What a model answers becomes probabilities by what its configuration says that it was trained for: a sigmoid for each
class where that is ``multi_label_classification``, a softmax over the classes where it is not, or is not said. Some
multi-label models do not say it; for these there is the option ``sigmoid``.
"""

import hashlib
from collections.abc import Sequence

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


class HuggingFaceTagger:
    """A tag source; see ``tagasc.tagger.sources.TagSource``.

    Attributes:
        classes: the model's labels in the order of its output.
        activation: sigmoid or softmax.
        sampling_rate: that the model's feature extractor takes, in Hz; scene clips are resampled to it.
    """

    def __init__(self, name: str, device: torch.device, batch: int = 16, activation: str = "auto") -> None:
        """Load the model.

        Raises:
            UserError: the package is absent, there is no such model, it needs code of its own or has no safetensors,
                or it is none that names events.
        """
        try:
            from transformers import AutoFeatureExtractor, AutoModelForAudioClassification
        except ImportError:
            raise UserError(f"--tagger hf:{name} needs the package transformers; {_INSTALL}") from None
        try:
            self.extractor = AutoFeatureExtractor.from_pretrained(name, trust_remote_code=False)
            model = AutoModelForAudioClassification.from_pretrained(name, trust_remote_code=False, use_safetensors=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UserError(f"--tagger hf:{name}: cannot be loaded ({' '.join(str(error).split())[:160]})") from None
        self.name, self.device, self.batch = name, device, batch
        self.model = model.to(device).eval()
        self.classes = [str(model.config.id2label[n]) for n in range(model.config.num_labels)]
        self.sampling_rate = int(self.extractor.sampling_rate)
        kind = model.config.problem_type
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2 or kind == "regression":
            raise UserError(f"--tagger hf:{name}: its outputs are not two or more classes of different names")
        said = "sigmoid" if kind == "multi_label_classification" else "softmax"
        self.activation = said if activation == "auto" else activation
        log.info("hf:%s: %d classes, %d Hz, %s", name, len(self.classes), self.sampling_rate, self.activation)
        if kind is None and activation == "auto":
            log.warning("hf:%s does not say whether it is multi-label; if it is, give --activation sigmoid", name)

    def input_hashes(self) -> dict[str, str]:
        """A hash of the weights, the configuration, the feature extractor and the activation."""
        whole = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            whole.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            whole.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        for text in (self.model.config.to_json_string(), self.extractor.to_json_string(), self.activation):
            whole.update(text.encode())
        return {"tag source": whole.hexdigest()}

    @torch.inference_mode()
    def tags(self, packed: PackedAudio) -> np.ndarray:
        """Tag probabilities of whole clips, float32 (clips, classes): mean of the channels, resampled.

        A clip is heard as far as the model's feature extractor goes; many stop after 10 s.
        """
        require_samples(packed)
        store = AudioStore(packed, self.device)
        to_rate = ToMono(packed.sampling_rate, self.sampling_rate).to(self.device)
        rows = np.zeros((len(packed), len(self.classes)), np.float32)
        groups = group_by_length(packed, self.batch)
        for length, places in progress(groups, f"tagging {packed.folder.name}", total=len(groups)):
            mono = to_rate(store.windows(places, torch.zeros_like(places), length))
            rows[places.numpy()] = self._probabilities(list(mono.cpu().numpy()), packed)
        return rows

    def _probabilities(self, waves: Sequence[np.ndarray], packed: PackedAudio) -> np.ndarray:
        try:  # of one length, so an extractor pads only to what its model expects
            inputs = self.extractor(waves, sampling_rate=self.sampling_rate, return_tensors="pt")
            logits: Tensor = self.model(**inputs.to(self.device)).logits.float()
        except (RuntimeError, ValueError, TypeError) as error:
            why = " ".join(str(error).split())[:120]
            raise UserError(
                f"{packed.folder}: hf:{self.name} cannot tag clips of {len(waves[0])} samples ({why})"
            ) from None
        values = logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(dim=1)
        if not bool(values.isfinite().all()):
            raise UserError(f"{packed.folder}: hf:{self.name} answers with values that are not numbers")
        return values.cpu().numpy()
