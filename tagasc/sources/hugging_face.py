"""Any audio-classification model of Hugging Face's ``transformers`` as a tagger.

The package is optional. A model is a folder, or a name on the Hub. Only weights in safetensors are read, they must be
all that the model has, and a model's own code is never run. Computation is in float32, whatever the file holds.

The model's configuration decides the activation: sigmoid for ``multi_label_classification``, else softmax. Some
multi-label models lack this entry; give the option ``sigmoid`` for these. The window is what the feature extractor
takes without cutting anything off; an extractor that is not known here is refused.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tagasc.sources.outside import OutsideTagger
from tagasc.sources.source import SourceOptions
from tagasc.sources.windows import Windows
from tagasc.utils.errors import UserError
from tagasc.utils.log import log

_TRAINING_ONLY = "masked_spec_embed"  # stands for masked frames in training; published files may lack it
_WINDOWS: dict[str, Callable[[Any], int | None]] = {  # samples that an extractor takes, by its class
    "ASTFeatureExtractor": lambda extractor: extractor.max_length * extractor.sampling_rate // 100,  # frames of 10 ms
    "WhisperFeatureExtractor": lambda extractor: extractor.n_samples,
    "Wav2Vec2FeatureExtractor": lambda extractor: None,
    "SeamlessM4TFeatureExtractor": lambda extractor: None,
}


class HuggingFaceTagger(OutsideTagger):
    """A tag source; see ``tagasc.sources.outside.OutsideTagger``.

    Its embedding is what the model's classifier gets: the pooled last hidden state.

    Attributes:
        activation: ``sigmoid`` or ``softmax``.
    """

    kind = "Hugging Face"

    def __init__(self, name: str, device: torch.device, options: SourceOptions) -> None:
        """Load the model.

        Raises:
            UserError: the package or the model is missing, or the model needs its own code, has no safetensors, lacks
                weights or has others, has fewer than two classes, or an extractor or a form that is not known here.
        """
        title = f"hf:{name}"
        transformers = import_transformers(title)
        self.extractor = load_pretrained(title, transformers.AutoFeatureExtractor, name)
        self.model = load_weights(title, transformers.AutoModelForAudioClassification, name, device)
        config = self.model.config
        classes = [str(config.id2label[n]) for n in range(config.num_labels)]
        super().__init__(title, classes, self._windows(title, options), device, options)
        if config.problem_type == "regression":
            raise UserError(f"--tags-from {title}: its outputs are no classes; choose another model")
        configured = "sigmoid" if config.problem_type == "multi_label_classification" else "softmax"
        self.activation = configured if options.activation == "auto" else options.activation
        self.extra = {"activation": self.activation if self.take == "probability" else "none"}
        self.hashes = {"weights and configuration": hash_of(self.model, config, self.extractor)}
        self.parameters = self.model.num_parameters()
        if config.problem_type is None and options.activation == "auto" and self.take == "probability":
            log.warning("%s: its configuration has no problem_type; if it is multi-label, give --activation sigmoid",
                        title)  # fmt: skip
        if self.take == "embedding":
            self._pooled = catch_input(title, self.model)

    def _windows(self, title: str, options: SourceOptions) -> Windows:
        kind = type(self.extractor).__name__
        if kind not in _WINDOWS:
            raise UserError(
                f"--tags-from {title}: how much sound its {kind} takes is not known; write a py: file instead"
            )
        rate = int(self.extractor.sampling_rate)
        return Windows(_WINDOWS[kind](self.extractor), rate, options.short, options.long, padded_by_tagger=True)

    def compute(self, waves: Tensor) -> Tensor:
        """Return probabilities, or the embedding; see ``OutsideTagger``."""
        # Windows of one length, so the extractor only pads to the length that the model expects.
        inputs = self.extractor(list(waves.cpu().numpy()), sampling_rate=self.windows.rate, return_tensors="pt")
        logits: Tensor = self.model(**inputs.to(self.device)).logits.float()
        if self.take == "embedding":
            return self._pooled()
        return logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(dim=1)


def import_transformers(title: str) -> Any:
    """Import the package; raise UserError if it is missing."""
    try:
        import transformers
    except ImportError:
        raise UserError(
            f"--tags-from {title} needs the package transformers; pip install --constraint constraints.txt transformers"
            " (into the Python that runs the recipe)"
        ) from None
    return transformers


def load_pretrained(title: str, loader: Any, name: str, **options: Any) -> Any:
    """Load a part of a model without code of its own; raise UserError if that fails."""
    try:
        return loader.from_pretrained(name, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise UserError(f"--tags-from {title}: cannot be loaded ({' '.join(str(error).split())[:160]})") from None


def load_weights(title: str, loader: Any, name: str, device: torch.device) -> Any:
    """Load a model from safetensors in float32, complete; raise UserError if that is not possible."""
    model, loaded = load_pretrained(title, loader, name, use_safetensors=True, output_loading_info=True)
    _require_all_weights(title, loaded)
    return model.float().to(device).eval()


def hash_of(model: nn.Module, *parts: Any) -> str:
    """Return one hash of a model's weights and of the configurations in ``parts``."""
    sha256 = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        sha256.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha256.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    for part in parts:
        sha256.update(part.to_json_string().encode())
    return sha256.hexdigest()


def catch_input(title: str, model: nn.Module) -> Callable[[], Tensor]:
    """Keep what a model's classifier gets; return a function that returns it after a forward pass.

    Raises:
        UserError: the model has no layer of that name; when called, also if the layer gets no vector per clip.
    """
    layer, caught = getattr(model, "classifier", None), []
    if not isinstance(layer, nn.Module):
        raise UserError(f"--tags-from {title}: it has no pooled hidden state to take as an embedding; take probability")
    layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))

    def pooled() -> Tensor:
        value = caught.pop()
        caught.clear()
        if value.ndim != 2:
            raise ValueError(f"its classifier gets {tuple(value.shape)}, not a vector for each clip")
        return value

    return pooled


def _require_all_weights(title: str, loaded: Mapping[str, Collection]) -> None:
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
            raise UserError(f"--tags-from {title}: {problem}: {', '.join(found[:3])}{more}; choose a complete model")
