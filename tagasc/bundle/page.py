"""A page that says why a recording got its answer: one HTML file that needs no network and no other file.

Names are escaped. The page's policy lets the browser fetch nothing and run the one script that moves the cursor.
"""

import base64
import hashlib
import io
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tagasc.audio.decoding import open_audio
from tagasc.bundle import drawing
from tagasc.bundle.audio import open_sound
from tagasc.bundle.explain import Explanation, explain
from tagasc.bundle.output import clock
from tagasc.bundle.picture import spectrogram
from tagasc.bundle.runner import Answer, Bundle
from tagasc.utils.files import write_text

EXPLAINED = 6  # windows of a recording that are explained
_EXACT, _LONGEST = 30, 600  # s; the player's sound is WAV up to the first, Ogg Vorbis up to the second
_ROWS, _LEAST = 7, 0.005  # events for, and as many against, and the least change of the margin that is shown
_SCRIPT = """
const sound = document.querySelector("audio"), time = document.getElementById("time");
const cursor = document.getElementById("cursor"), { seconds, left, width } = time.dataset;
function move() {
  const x = +left + width * Math.min(1, sound.currentTime / seconds);
  cursor.setAttribute("x1", x); cursor.setAttribute("x2", x);
  if (!sound.paused) requestAnimationFrame(move);
}
sound.addEventListener("play", move); sound.addEventListener("timeupdate", move);
time.addEventListener("click", (event) => {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(time.getScreenCTM().inverse());
  sound.currentTime = Math.max(0, (point.x - left) / width * seconds); move();
});
"""
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #20242a; background: #fff; max-width: 70rem; margin: 1.5rem auto;
  padding: 0 1.2rem; }
h1 { font-size: 1.15rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
h3 { font-size: .95rem; margin: .9rem 0 .2rem; }
p { margin: .3rem 0 .6rem; max-width: 46rem; }
.answer { font-size: 2.1rem; font-weight: 700; line-height: 1.15; margin: .1rem 0 .2rem; }
.note { background: #fdf3dc; border-left: 4px solid #d9a521; padding: .3rem .7rem; max-width: none; }
.small, figcaption { color: #5b626c; font-size: .85rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: .5rem 2.5rem; }
svg { width: 100%; height: auto; display: block; font: 11.5px system-ui, sans-serif; fill: #20242a; }
figure { margin: 0; }
.columns svg { max-width: 34rem; }
.axis { stroke: #8a8f98; } .cursor { stroke: #fff; stroke-width: 2; mix-blend-mode: difference; }
.strong { font-weight: 700; } .inside { fill: #fff; font-weight: 600; }
#time { cursor: crosshair; }
audio { width: 100%; margin: .4rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .15rem 1.2rem .15rem 0; border-bottom: 1px solid #e2e5e9; overflow-wrap: anywhere; }
details { border-top: 1px solid #cfd4da; margin-top: .8rem; padding-top: .4rem; }
summary { cursor: pointer; font-weight: 600; }
.same { color: #2a7f62; font-weight: 600; }
"""


def write_page(
    path: Path,
    bundle: Bundle,
    recording: str,
    answer: Answer,
    given: np.ndarray | None = None,
    hop: float = 0,
    truth: str = "",
) -> None:
    """Write the page of a recording.

    Args:
        path: the page.
        bundle: the bundle.
        recording: path of the recording.
        answer: the bundle's answer for it; its name is the page's title.
        given: tags, if the bundle's tagger is elsewhere.
        hop: distance of the windows that the answer was made with, s.
        truth: true scene, if it is known.

    Raises:
        UserError: the recording cannot be read.
    """  # fmt: skip
    chosen = _chosen(answer)
    explanations = []
    with open_sound(recording) as sound:
        number = 0
        for _, waves in bundle.batches(sound, hop):
            for wave in waves:
                if number in chosen:
                    explanations.append(explain(bundle, answer.windows[number].start, wave, given))
                number += 1
    player = _player(recording, answer)
    tags, spans = _events(bundle, answer, explanations)
    parts = [
        _head(bundle, answer, truth),
        player,
        f"<figure>{drawing.over_time(answer, spectrogram(recording), tags, spans)}"
        f"<figcaption>{escape(_caption(answer, tags))}</figcaption></figure>",
        *_sections(bundle, answer, explanations),
        _foot(bundle),
    ]
    write_text(path, _page(answer, "\n".join(parts), bool(player)))


def _chosen(answer: Answer) -> set[int]:
    """Choose the windows to explain: all of a few, else the surest and the least sure."""
    order = sorted(range(len(answer.windows)), key=lambda n: -answer.windows[n].probabilities.max())
    return set(order) if len(order) <= EXPLAINED else {*order[: EXPLAINED // 2], *order[-(EXPLAINED // 2) :]}


def _head(bundle: Bundle, answer: Answer, truth: str) -> str:
    rival = answer.ranked()[1]
    wrong = f" (wrong: it is {escape(truth)})" if truth and truth != answer.scene else ""
    margin = f"margin {answer.margin:.2f}"
    lines = [
        f"<h1>{escape(answer.name)}</h1>",
        f'<p class="answer">{escape(answer.scene)}{wrong}</p>',
        f"<p>Probability {answer.probability:.2f}, {margin}; next {escape(rival[0])} {rival[1]:.2f}."
        f" {answer.seconds:.3g} s, {answer.rate} Hz, {answer.channels} channel(s)"
        + (f", {len(answer.windows)} windows" if len(answer.windows) > 1 else "")
        + f".{' ' + escape('; '.join(answer.notes)).capitalize() + '.' if answer.notes else ''}</p>",
    ]
    if "synthetic" in bundle.about["data"]["scenes"]:
        text = "This system was trained on synthetic sounds. Its answers on real recordings mean nothing."
        lines.append(f'<p class="note">{text}</p>')
    return "\n".join(lines)


def _player(recording: str, answer: Answer) -> str:
    """Embed the sound; of very long recordings none."""
    if answer.seconds > _LONGEST:
        return f'<p class="small">Longer than {_LONGEST // 60} minutes, so its sound is not in this page.</p>'
    kind, subtype, mime = ("WAV", "PCM_16", "wav") if answer.seconds <= _EXACT else ("OGG", "VORBIS", "ogg")
    memory = io.BytesIO()
    with open_audio(recording) as (file, frames):
        channels = min(2, file.channels)
        with soundfile.SoundFile(memory, "w", file.samplerate, channels, subtype, format=kind) as out:
            while frames > 0 and len(block := file.read(min(frames, 2**14), dtype="float32", always_2d=True)):
                frames -= len(block)
                out.write(block if file.channels <= 2 else np.repeat(block.mean(axis=1, keepdims=True), 2, axis=1))
    data = base64.b64encode(memory.getvalue()).decode("ascii")
    return f'<audio controls src="data:audio/{mime};base64,{data}"></audio>'


def _events(
    bundle: Bundle, answer: Answer, explanations: Sequence[Explanation]
) -> tuple[np.ndarray | None, list[tuple[float, float]]]:
    """Return tags over time, by window, or of a single window by overlapping pieces, and the span of each."""
    if not bundle.uses_tags:
        return None, []
    end = answer.seconds
    pieces = explanations[0].events_over_time
    if len(answer.windows) > 1 or pieces is None:
        spans = [(window.start, min(end, window.start + window.seconds)) for window in answer.windows]
        cuts = [start for start, _ in spans[1:]] + [end]  # overlapping windows are drawn up to the next one
        spans = [(start, min(stop, cut)) for (start, stop), cut in zip(spans, cuts, strict=True)]
        return np.stack([window.tags for window in answer.windows]), spans
    edges = np.linspace(0, min(end, bundle.contract.seconds), len(pieces) + 1)
    return pieces, [(float(a), float(b)) for a, b in pairwise(edges)]


def _caption(answer: Answer, tags: np.ndarray | None) -> str:
    text = "Spectrogram (mel scale, 70 dB) of the mean of the channels."
    if tags is not None:
        what = "windows" if len(answer.windows) > 1 or len(tags) == 1 else "overlapping pieces of about 1 s"
        text += f" Events: the likeliest, as the tagger hears them in {what}; darker is likelier."
    return text


def _sections(bundle: Bundle, answer: Answer, explanations: Sequence[Explanation]) -> list[str]:
    if len(answer.windows) == 1:
        return [_section(bundle, explanations[0])]
    parts = []
    if len(explanations) < len(answer.windows):
        parts.append(f"<p>Of {len(answer.windows)} windows the surest and the least sure are explained.</p>")
    for one in explanations:
        end = min(one.start + bundle.contract.seconds, answer.seconds)
        name, sure = bundle.scenes[one.scene], one.probabilities[one.scene]
        title = f"{clock(one.start)} to {clock(end)}: {name} {sure:.2f}"
        parts.append(f"<details><summary>{escape(title)}</summary>{_section(bundle, one)}</details>")
    return parts


def _section(bundle: Bundle, one: Explanation) -> str:
    scene, rival = bundle.scenes[one.scene], bundle.scenes[one.rival]
    left = [
        "<h2>Scenes</h2>",
        drawing.probability_bars(bundle.scenes, one.probabilities, one.scene),
        f'<p class="small">Closest rival for the SVM: {escape(rival)}, margin {one.margin:.2f}'
        " (1 is the edge of its training margin).</p>",
        _nearest(one, scene),
    ]
    right = [_influence(bundle, one, scene, rival), _attention(bundle, one)]
    return f'<div class="columns"><div>{"".join(left)}</div><div>{"".join(right)}</div></div>'


def _influence(bundle: Bundle, one: Explanation, scene: str, rival: str) -> str:
    if one.influence is None:
        return "<h2>Events</h2><p>This system uses no tags.</p>"
    changes, mean = one.influence.changes, bundle.training["tags"]
    order = np.argsort(-changes, kind="stable")
    shown = [*(n for n in order[:_ROWS] if changes[n] >= _LEAST), *(n for n in order[-_ROWS:] if changes[n] <= -_LEAST)]
    rows = [(bundle.events[n], float(one.tags[n]), float(mean[n]), float(changes[n])) for n in shown]
    then = bundle.scenes[one.influence.cut_scene]
    outcome = f"the answer would still be {scene}" if then == scene else f"the answer would be {then}"
    cut = (
        f"Without tags (all at their training mean) {outcome}, the margin over {rival} {one.influence.cut_margin:.2f}."
    )
    return (
        f"<h2>Events for and against {escape(scene)}</h2>{drawing.influence_bars(rows)}"
        '<p class="small">How far the margin falls when the tag of one event is set to its mean over the training'
        f" clips: to the right it spoke for {escape(scene)}, to the left for {escape(rival)}. Presence and absence both"
        f" count.</p><p>{escape(cut)}</p>"
    )


def _attention(bundle: Bundle, one: Explanation) -> str:
    if one.attention is None:
        return "<h2>Attention</h2><p>This system has no attention.</p>" if bundle.uses_tags else ""
    return (
        f"<h2>Attention</h2>{drawing.attention_strips(one.attention, bundle.contract.seconds)}"
        '<p class="small">Weight of each filter relative to uniform attention in its head (darker is more), and how'
        " much more, or less, the filters respond over time than with the attention for the mean training tags.</p>"
    )


def _nearest(one: Explanation, scene: str) -> str:
    rows = "".join(
        f"<tr><td>{escape(clip)}</td><td{' class=same' if name == scene else ''}>{escape(name)}</td>"
        f"<td>{distance:.2f}</td></tr>"
        for clip, name, distance in one.nearest
    )
    return (
        "<h2>Most similar training clips</h2><table><tr><th>clip</th><th>scene</th><th>distance</th></tr>"
        f'{rows}</table><p class="small">Distance of the codes. A training clip is typically {one.typical:.2f} from the'
        " nearest one of its scene.</p>"
    )


def _foot(bundle: Bundle) -> str:
    about: dict[str, Any] = bundle.about
    accuracy = about["accuracy"]
    limits = "".join(f"<li>{escape(text)}</li>" for text in about["limits"])
    return (
        f'<details class="small"><summary>The system and its limits</summary><p>{escape(about["system"])}, seed'
        f" {about['seed']}, {100 * accuracy['test']:.1f} % of {accuracy['clips']} test clips of"
        f" {escape(about['data']['scenes'])}. Probabilities: {escape(about['probabilities']['method'])}.</p>"
        f"<ul>{limits}</ul></details>"
    )


def _page(answer: Answer, body: str, playable: bool) -> str:
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode("ascii")
    policy = (
        "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; form-action 'none';"
        f" base-uri 'none'; script-src 'sha256-{digest}'"
    )
    script = f"<script>{_SCRIPT}</script>\n" if playable and "<audio" in body else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(answer.scene)}: {escape(answer.name)}</title>\n"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style>\n</head>\n'
        f"<body>\n{body}\n{script}</body>\n</html>\n"
    )
