"""The report's sections on what tags, attention and codes hold of the scenes."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import entropy

from tagasc.backend.codes import Codes
from tagasc.report import scene_figures
from tagasc.report.comparison import Comparison
from tagasc.report.markdown import Table, escape, markdown
from tagasc.scene.network import SceneNetwork
from tagasc.scene.training import load_scene_network
from tagasc.tagger.tags import TagVectors, rescale
from tagasc.utils.errors import UserError
from tagasc.utils.log import log

MOST_CODES = 1500  # clips in the map of the codes
EVENTS = 20  # events shown by scene


def insight_sections(comparison: Comparison, attended: str | None) -> list[str]:
    """What tags, attention and codes hold of the scenes, on the test clips; a line where an input is missing.

    Args:
        comparison: what was measured.
        attended: name of the best system with attention, or None.
    """
    lines = ["## What the tags say of each scene", "", *_section_or_reason(_tags, comparison)]
    lines += ["## What the attention emphasises", ""]
    lines += (
        _section_or_reason(_attention, comparison, attended) if attended else ["No system with attention was run.", ""]
    )
    return lines + ["## Map of the codes", "", *_section_or_reason(_codes, comparison)]


def _tags(comparison: Comparison) -> list[str]:
    vectors, places = _test_tags(comparison)
    scenes = comparison.best.clips.names
    events = np.argsort(-eta_squared(vectors[0], places, len(scenes)), kind="stable")[:EVENTS]
    means = mean_by_scene(vectors[0], places, len(scenes))[:, events]
    names = [vectors[1][event] for event in events]
    scene_figures.scene_tags(means, scenes, names, comparison.out / "scene_tags.png", comparison.watermark)
    return [
        f"Mean tag of the test clips of each scene: the {len(names)} of {len(vectors[1])} events whose tags depend most"
        " on the scene (share of variance between scenes), in falling order.",
        "",
        "![mean tags by scene](scene_tags.png)",
        "",
        "The tags that lie farthest above those of the other scenes, in standard deviations (in brackets: mean tag):",
        "",
        markdown(distinctive_events(*vectors, places, scenes)),
    ]


def _attention(comparison: Comparison, name: str) -> list[str]:
    result, scenes = comparison.by_name[name], comparison.best.clips.names
    path = result.runs[0].paths.weights
    network, metadata = load_scene_network(path)
    (values, _), places = _test_tags(comparison)
    if metadata["tags"] != values.shape[1]:
        raise UserError(
            f"{path} takes {metadata['tags']} tags, {comparison.tag_vectors} has {values.shape[1]}; run stage 5 again"
        )
    maps = attention_maps(network, rescale(values, metadata["tag_scale"]))
    scene_figures.attention(maps, places, scenes, comparison.out / "attention.png", comparison.watermark)
    between = eta_squared(maps.reshape(len(maps), -1), places, len(scenes))
    spread = maps.reshape(len(maps), -1).std(axis=0)
    effective = attention_perplexity(maps)
    return [
        f"{name}, seed {result.seeds[0]}: the attention map A of the test clips, in multiples of an even spread within"
        f" the head. A head of {maps.shape[2]} filters spreads over {effective.min():.1f} to {effective.max():.1f} of"
        " them (exp of the entropy, mean over clips). From clip to clip a filter's value varies by"
        f" {np.median(spread):.2f} (standard deviation, median over filters); {100 * np.median(between):.0f} % of that"
        " variance lies between scenes (median).",
        "",
        "![attention by scene and filter](attention.png)",
        "",
    ]


def _codes(comparison: Comparison) -> list[str]:
    codes, chosen, clips = {}, None, comparison.best.clips
    test = clips.of("test")
    for result in comparison.baseline_and_best:
        path = result.runs[0].paths.codes_of("test")
        found = Codes.read(path)
        if not np.array_equal(found.ids, clips.ids[test]):
            raise UserError(f"{path} holds other clips than were scored; run stages 6 and 7 again")
        if chosen is None:
            order = np.random.default_rng(0).permutation(len(found.ids))
            chosen = np.sort(order[:MOST_CODES])
        codes[f"{result.name}, seed {result.seeds[0]}"] = found.codes[chosen]
    scene_figures.code_map(
        codes, clips.truth[test][chosen], clips.names, comparison.out / "codes.png", comparison.watermark
    )
    return [
        f"t-SNE of the codes of {len(chosen)} test clips. Distances between far groups mean nothing.",
        "",
        "![map of the codes](codes.png)",
        "",
    ]


def _test_tags(comparison: Comparison) -> tuple[tuple[np.ndarray, list[str]], np.ndarray]:
    """Tag vectors of the test clips with the events' names, and each clip's scene."""
    clips = comparison.best.clips
    test, vectors = clips.of("test"), TagVectors.read(comparison.tag_vectors)
    return (vectors.of(clips.ids[test].tolist()), vectors.classes), clips.truth[test]


def _section_or_reason(section: Callable[..., list[str]], *arguments: object) -> list[str]:
    """A section, or the line that says why there is none."""
    try:
        return section(*arguments)
    except UserError as error:
        log.warning("left out of the report: %s", error)
        return [f"Not shown: {escape(str(error))}", ""]


def mean_by_scene(values: np.ndarray, places: np.ndarray, scenes: int) -> np.ndarray:
    """Means over the clips of each scene: (clips, values) and positions of the scenes (clips,) → (scenes, values)."""
    return np.array([values[places == scene].mean(axis=0) for scene in range(scenes)])


def eta_squared(values: np.ndarray, places: np.ndarray, scenes: int) -> np.ndarray:
    """Share of each value's variance over clips that lies between scenes (η²): (clips, values) → (values,), 0..1."""
    means, counts = mean_by_scene(values, places, scenes), np.bincount(places, minlength=scenes)
    between = (counts[:, None] * (means - values.mean(axis=0)) ** 2).sum(axis=0)
    total = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    return np.divide(between, total, out=np.zeros_like(total), where=total > 0)


def distinctive_events(
    values: np.ndarray, classes: list[str], places: np.ndarray, scenes: list[str], count: int = 3
) -> Table:
    """A row a scene: the events whose mean tag lies farthest above the other scenes', in standard deviations.

    In brackets the mean tag in the scene and in the others.
    """
    deviation, rows = values.std(axis=0).clip(min=1e-12), []
    for number, scene in enumerate(scenes):
        here, elsewhere = values[places == number].mean(axis=0), values[places != number].mean(axis=0)
        distance = (here - elsewhere) / deviation
        chosen = [n for n in np.argsort(-distance, kind="stable")[:count] if distance[n] > 0]
        said = [f"{classes[n]} {distance[n]:+.1f} sd ({here[n]:.3f}, else {elsewhere[n]:.3f})" for n in chosen]
        rows.append((scene, "; ".join(said)))
    return ("scene", "events that distinguish it"), rows


@torch.inference_mode()
def attention_maps(network: SceneNetwork, tags: np.ndarray) -> np.ndarray:
    """The attention map of each clip in multiples of an even spread: (clips, c) → (clips, heads, filters per head).

    Within a head the values of a clip average to 1. No audio is needed, since the tags alone steer the attention.
    """
    fusion = network.fusion
    transform = fusion.for_concat if fusion.system.shared else fusion.for_attention
    by_head = fusion.attend.attention(transform(torch.from_numpy(tags))).unflatten(1, (fusion.attend.heads, -1))
    return (by_head * by_head.shape[2]).numpy()


def attention_perplexity(maps: np.ndarray) -> np.ndarray:
    """How many filters each head spreads its attention over: exp of the entropy, mean over clips, (heads,)."""
    return np.exp(entropy(maps, axis=2)).mean(axis=0)
