"""CLAP as a tagger of any vocabulary: a sound is compared with sentences about your own events.

A tag is the softmax, over the events, of the similarities between the sound and their sentences, times the scale that
CLAP was trained with and divided by a temperature. So the tags of a clip add up to 1. For the safety of what is
loaded, see ``tagasc.sources.hugging_face``.
"""

from pathlib import Path

import torch
from torch import Tensor

from tagasc.sources.hugging_face import hash_of, import_transformers, load_pretrained, load_weights
from tagasc.sources.outside import OutsideTagger
from tagasc.sources.source import SourceOptions, require_default
from tagasc.sources.windows import Windows
from tagasc.utils.errors import UserError


class ClapTagger(OutsideTagger):
    """A tag source; see ``tagasc.sources.outside.OutsideTagger``. Its embedding is CLAP's, of length 1."""

    kind = "CLAP"

    def __init__(self, name: str, device: torch.device, options: SourceOptions) -> None:
        """Load the model and embed the sentences.

        Raises:
            UserError: the package, the model or the events are missing or unusable; see also ``HuggingFaceTagger``.
        """
        title = f"clap:{name}"
        require_default(options, title, activation="it takes a softmax over your events")
        if "{}" not in options.prompt or not options.temperature > 0:
            raise UserError(
                f"--prompt must have {{}} where the event stands, and --temperature be above 0; found"
                f" {options.prompt!r} and {options.temperature:g}"
            )
        classes = _events(options.events)
        transformers = import_transformers(title)
        self.extractor = load_pretrained(title, transformers.AutoFeatureExtractor, name)
        if type(self.extractor).__name__ != "ClapFeatureExtractor":
            raise UserError(f"--tags-from {title}: it is no CLAP model; for an audio classifier use hf:{name}")
        tokenizer = load_pretrained(title, transformers.AutoTokenizer, name)
        self.model = load_weights(title, transformers.ClapModel, name, device)
        rate, samples = int(self.extractor.sampling_rate), int(self.extractor.nb_max_samples)
        windows = Windows(samples, rate, options.short, options.long)
        super().__init__(title, classes, windows, device, options)
        self.scale = float(self.model.logit_scale_a.detach().exp()) / options.temperature
        self.sentences = self._embed([options.prompt.replace("{}", event) for event in classes], tokenizer)
        self.extra = {"activation": "none"}
        if self.take == "probability":
            self.extra = {"activation": "softmax", "prompt": options.prompt, "temperature": options.temperature}
            self.extra["events"] = classes
        self.hashes = {"weights and configuration": hash_of(self.model, self.model.config, self.extractor)}
        self.parameters = self.model.num_parameters()

    @torch.inference_mode()
    def _embed(self, sentences: list[str], tokenizer) -> Tensor:
        """Return the embeddings of sentences, (sentences, values), each of length 1."""
        tokens = tokenizer(sentences, padding=True, return_tensors="pt").to(self.device)
        return _vectors(self.model.get_text_features(**tokens))

    def compute(self, waves: Tensor) -> Tensor:
        """Return probabilities, or the embedding; see ``OutsideTagger``."""
        inputs = self.extractor(list(waves.cpu().numpy()), sampling_rate=self.windows.rate, return_tensors="pt")
        # No window is longer than the model takes. The extractor marks one at random as if it were.
        inputs["is_longer"] = torch.zeros_like(inputs["is_longer"])
        sound = _vectors(self.model.get_audio_features(**inputs.to(self.device)))
        return sound if self.take == "embedding" else (self.scale * sound @ self.sentences.T).softmax(dim=1)


def _vectors(output) -> Tensor:
    """Return normalised embeddings; transformers 5 wraps them, transformers 4 did not."""
    value = output if isinstance(output, Tensor) else output.pooler_output
    return value.float() / value.float().norm(dim=1, keepdim=True)


def _events(path: Path | None) -> list[str]:
    if path is None:
        raise UserError("clap: needs --events FILE, a text file with one event a line")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise UserError(f"--events {path} does not exist; write one event a line into it") from None
    except UnicodeDecodeError:
        raise UserError(f"--events {path} is not UTF-8 text; save it as UTF-8") from None
    return [line for line in lines if line]
