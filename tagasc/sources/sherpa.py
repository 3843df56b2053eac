"""Taggers as sherpa-onnx publishes them: what the metadata of CED and of icefall's zipformer mean.

Both were trained on AudioSet's clips of 10 s. Their outputs are probabilities, although the zipformer's is named
logits.
"""

from collections.abc import Mapping
from typing import Any

CLASSES = "class_labels_indices.csv"
_SECONDS = 10.0
_FORMS = {
    "CED": {"input": "mel64db", "output": "prob"},
    "zipformer2": {"input": "kaldi_fbank80", "output": "logits"},
    "zipformer2_at": {"input": "kaldi_fbank80", "output": "logits"},
}


def description(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what a published model takes and gives, without its classes; None if it is no such model.

    Args:
        metadata: properties that the ONNX file itself holds.
    """
    form = _FORMS.get(metadata.get("model_type", ""))
    return form and {"sampling_rate": 16000, "activation": "none", "window": _SECONDS, **form}
