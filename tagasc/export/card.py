"""A bundle's ``card.md``: what ``bundle.json`` says, for people."""

from typing import Any

from tagasc.report.markdown import escape, format_interval, markdown_table


def card(about: dict[str, Any]) -> str:
    """Write the card of a bundle from its description."""
    return "\n".join([*_use(about), *_results(about), *_sound(about), *_data(about), *_model(about), *_origin(about)])


def _use(about: dict[str, Any]) -> list[str]:
    note, scenes = about["data"]["note"], about["scenes"]
    return [
        f"# {about['system']}, seed {about['seed']}: an acoustic scene classifier",
        "",
        *([f"**{escape(note)}**", ""] if note else []),
        f"It takes {about['audio']['seconds']:g} s of sound and answers with one of {len(scenes)} scenes:"
        f" {escape(', '.join(scenes))}. {_tagger_text(about['tagger'], about['events'])}",
        "",
        "```sh",
        "pip install -r requirements.txt",
        "python predict.py RECORDING.wav",
        "```",
        "",
        "```python",
        "from tagasc.bundle import load",
        "answer = load(FOLDER)(samples, rate)",
        "print(answer.scene, answer.probability, answer.margin, answer.events(3))",
        "```",
        "",
    ]


def _results(about: dict[str, Any]) -> list[str]:
    rows = [(name, f"{100 * value:.1f}") for name, value in about["accuracy"]["by_scene"].items()]
    text = _accuracy_text(about["accuracy"])
    return ["## Accuracy", "", text, "", markdown_table((("scene", "accuracy in %"), rows))]


def _sound(about: dict[str, Any]) -> list[str]:
    sound = about["audio"]
    return [
        "## Sound",
        "",
        f"{sound['sampling_rate']} Hz, {sound['channels']} channel(s), {sound['seconds']:g} s"
        f" ({sound['frames']} sample frames), samples as {sound['sample_format']}.",
        "",
        *(f"- {text}" for text in sound["conversions"]),
        "",
        "## Limits",
        "",
        *(f"- {text}" for text in about["limits"]),
        "",
    ]


def _data(about: dict[str, Any]) -> list[str]:
    data = about["data"]
    return [
        "## Data and licences",
        "",
        f"Scenes: {escape(data['scenes'])}" + (f"; events: {escape(data['events'])}." if data["events"] else "."),
        f"Clips: {', '.join(f'{split} {count}' for split, count in data['clips'].items())}.",
        "",
        *(f"- {escape(text)}" for text in data["licences"]),
        "",
    ]


def _model(about: dict[str, Any]) -> list[str]:
    parity = about["parity"]
    return [
        "## Model",
        "",
        markdown_table((("", ""), _model_rows(about))),
        "## ONNX and PyTorch",
        "",
        f"{parity['clips']} clips of {parity['split']}: the scene is the same for {parity['equal_scenes']}. Largest"
        f" differences: {', '.join(f'{name} {value:.1e}' for name, value in parity['largest_difference'].items())}."
        f" {escape(parity['recipe'])}",
        "",
    ]


def _origin(about: dict[str, Any]) -> list[str]:
    made = about["made"]
    return [
        "## How it was made",
        "",
        f"Trained at commit {made['trained']['commit']} on {made['trained']['date']}, exported at {made['commit']} on"
        f" {made['date']}.",
        "",
        f"- {escape(', '.join(f'{name} {version}' for name, version in made['versions'].items()))}",
        f"- {escape(made['machine']['system'])}, {made['machine']['processors']} processors",
        f"- {escape(made['trained']['command'])}",
        "",
        "Commands of the recipe, oldest first:",
        "",
        "```",
        *(line.replace("```", "` ` `") for line in made["commands"]),
        "```",
        "",
        f"Cite: {about['citation']}.",
        "",
    ]


def _tagger_text(tagger: dict[str, Any], events: list[str]) -> str:
    if tagger["kind"] == "none":
        return "It uses no tags."
    if tagger["kind"] == "own":
        return f"It hears {len(events)} events by a tagger of its own, `tagger.onnx`."
    source, digest = escape(tagger["source"]), tagger["sha256"]
    return f"It needs the tags of {len(events)} events from a tagger that is not here: {source}, SHA-256 {digest}."


def _accuracy_text(results: dict[str, Any]) -> str:
    interval = results["interval_95"]
    shown = f" (95 % CI {format_interval(tuple(interval))}, over locations)" if interval else ""
    text = (
        f"{100 * results['test']:.1f} %{shown} of {results['clips']} test clips from {results['locations']} locations"
    )
    seeds = results["by_seed"]
    if len(seeds) > 1:
        text += f"; all seeds: {', '.join(f'{100 * value:.1f}' for value in seeds.values())} %"
    return f"{text}. Epoch, kernel and C were chosen on validation clips, and so was the seed."


def _model_rows(about: dict[str, Any]) -> list[tuple[str, str]]:
    network, svm, tagger = about["network"], about["svm"], about["tagger"]
    fusion = ", ".join(f"{name}: {value}" for name, value in about["fusion"].items())
    probabilities = about["probabilities"]
    rows = [
        ("fusion of the tags", fusion),
        ("parameters of the network", f"{network['parameters']:,}"),
        ("multiply-accumulates a clip", f"{network['multiply_accumulates']:,}"),
        ("SVM", f"{svm['kernel']}, C = {svm['C']:g}, {svm['support_vectors']} support vectors"),
        ("probabilities", f"{probabilities['method']} ({probabilities['clips']} clips)"),
    ]
    if tagger["kind"] == "own":
        rows.append(("parameters of the tagger", f"{tagger['parameters']:,} in {tagger['networks']} network(s)"))
    return rows
