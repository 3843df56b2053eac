"""What ``bundle.json`` holds, as a JSON Schema, and a check against it that needs no package."""

from typing import Any

FORMAT = 1
NAME, DESCRIPTION = "bundle.json", "bundle.schema.json"


def _record(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    properties = required | (optional or {})
    return {"type": "object", "properties": properties, "required": list(required)}


_TEXT, _NUMBER, _WHOLE = {"type": "string"}, {"type": "number"}, {"type": "integer"}
_NAMES = {"type": "array", "items": _TEXT}
_NUMBERS = {"type": "array", "items": _NUMBER}
_ANY: dict[str, Any] = {}

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A trained system of tagasc, to be used elsewhere",
    **_record(
        {
            "format": {"const": FORMAT},
            "system": _TEXT,
            "seed": _WHOLE,
            "fusion": {"type": "object"},
            "scenes": _NAMES,
            "events": _NAMES,
            "audio": _record(
                {
                    "sampling_rate": _WHOLE,
                    "channels": _WHOLE,
                    "frames": _WHOLE,
                    "seconds": _NUMBER,
                    "sample_format": {"enum": ["int16", "float32"]},
                    "conversions": _NAMES,
                }
            ),
            "tagger": _record(
                {"kind": {"enum": ["own", "external", "none"]}, "source": _TEXT},
                {"sha256": _TEXT, "networks": _WHOLE, "parameters": _WHOLE, "scores": _ANY},
            ),
            "network": _record({"parameters": _WHOLE, "multiply_accumulates": _WHOLE}),
            "svm": _record({"kernel": _TEXT, "C": _NUMBER, "support_vectors": _WHOLE}),
            "probabilities": _record({"method": _TEXT, "slope": _NUMBER, "clips": _WHOLE}),
            "parity": _record(
                {
                    "clips": _WHOLE,
                    "split": _TEXT,
                    "equal_scenes": _WHOLE,
                    "largest_difference": {"type": "object"},
                    "recipe": _TEXT,
                },
                {"tagger_clips": _WHOLE},
            ),
            "accuracy": _record(
                {"test": _NUMBER, "clips": _WHOLE, "interval_95": _ANY, "by_scene": {"type": "object"}}
            ),
            "data": _record({"scenes": _TEXT, "events": _TEXT, "note": _TEXT, "licences": _NAMES}),
            "made": _record({"commit": _TEXT, "date": _TEXT, "commands": _NAMES, "versions": {"type": "object"}}),
            "limits": _NAMES,
            "citation": _TEXT,
            "example": _record({"file": _TEXT, "scene": _TEXT, "probabilities": _NUMBERS}),
            "files": {"type": "object"},
        }
    ),
}
_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float)}


def problem(value: Any, schema: dict[str, Any] = SCHEMA, where: str = "") -> str | None:
    """Describe the first place where a value does not fit the schema; None if it fits."""
    kind = schema.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or isinstance(value, bool)):
        return f"{where or 'it'} must be of type {kind}"
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        return f"{where} must not be {value!r}"
    for name in schema.get("required", ()):
        if name not in value:
            return f"{where + '.' if where else ''}{name} is missing"
    parts = [(value[name], part, name) for name, part in schema.get("properties", {}).items() if name in value]
    if "items" in schema:
        parts = [(item, schema["items"], str(number)) for number, item in enumerate(value)]
    found = (problem(item, part, f"{where}.{name}" if where else name) for item, part, name in parts)
    return next((text for text in found if text), None)
