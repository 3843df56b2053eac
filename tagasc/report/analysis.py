"""The report's sections on what tags, attention and codes hold of the scenes."""

from collections.abc import Callable

import numpy as np
import torch

from tagasc.backend.codes import Codes
from tagasc.report import scene_figures
from tagasc.report.comparison import Comparison
from tagasc.report.markdown import escape, markdown_table
from tagasc.report.statistics import attention_perplexity, eta_squared, mean_by_scene
from tagasc.report.tables import distinctive_events
from tagasc.scene.network import SceneNetwork
from tagasc.scene.training import load_scene_network
from tagasc.tagger.tags import TagVectors, rescale
from tagasc.utils.errors import UserError
from tagasc.utils.log import log

MOST_CODES = 1500  # clips in the map of the codes
EVENTS = 20  # events shown by scene


def analysis_sections(comparison: Comparison) -> list[str]:
    """What tags, attention and codes hold of the scenes, on the test clips; a line where an input is missing."""
    lines = ["## What the tags say of each scene", "", *_section_or_reason(_tags_section, comparison)]
    lines += ["## What the attention emphasises", "", *_section_or_reason(_attention_section, comparison)]
    return lines + ["## Map of the codes", "", *_section_or_reason(_codes_section, comparison)]


def _tags_section(comparison: Comparison) -> list[str]:
    vectors, scene_indices = _test_tags(comparison)
    scenes = comparison.best.clips.scene_names
    events = np.argsort(-eta_squared(vectors[0], scene_indices, len(scenes)), kind="stable")[:EVENTS]
    means = mean_by_scene(vectors[0], scene_indices, len(scenes))[:, events]
    names = [vectors[1][event] for event in events]
    scene_figures.plot_scene_tags(means, scenes, names, comparison.out / "scene_tags.png", comparison.watermark)
    return [
        f"Mean tag of the test clips of each scene: the {len(names)} of {len(vectors[1])} events whose tags depend most"
        " on the scene (share of variance between scenes), in falling order.",
        "",
        "![mean tags by scene](scene_tags.png)",
        "",
        "The tags that lie farthest above those of the other scenes, in standard deviations (in brackets: mean tag):",
        "",
        markdown_table(distinctive_events(*vectors, scene_indices, scenes)),
    ]


def _attention_section(comparison: Comparison) -> list[str]:
    result, scenes = comparison.best_with_attention, comparison.best.clips.scene_names
    if result is None:
        return ["No system with attention was run.", ""]
    path = result.runs[0].paths.weights
    network, metadata = load_scene_network(path)
    (values, _), scene_indices = _test_tags(comparison)
    if metadata["tags"] != values.shape[1]:
        raise UserError(
            f"{path} takes {metadata['tags']} tags, {comparison.tag_vectors} has {values.shape[1]}; run stage 5 again"
        )
    maps = attention_maps(network, rescale(values, metadata["tag_scale"]))
    scene_figures.plot_attention(maps, scene_indices, scenes, comparison.out / "attention.png", comparison.watermark)
    between = eta_squared(maps.reshape(len(maps), -1), scene_indices, len(scenes))
    spread = maps.reshape(len(maps), -1).std(axis=0)
    effective = attention_perplexity(maps)
    return [
        f"{result.name}, seed {result.seeds[0]}: the attention map A of the test clips, in multiples of an even spread"
        f" within the head. A head of {maps.shape[2]} filters spreads over {effective.min():.1f} to"
        f" {effective.max():.1f} of them (exp of the entropy, mean over clips). From clip to clip a filter's value"
        f" varies by {np.median(spread):.2f} (standard deviation, median over filters);"
        f" {100 * np.median(between):.0f} % of that variance lies between scenes (median).",
        "",
        "![attention by scene and filter](attention.png)",
        "",
    ]


def _codes_section(comparison: Comparison) -> list[str]:
    codes, chosen, clips = {}, None, comparison.best.clips
    test = clips.in_split("test")
    for result in comparison.baseline_and_best:
        path = result.runs[0].paths.codes_of("test")
        found = Codes.read(path)
        if not np.array_equal(found.ids, clips.ids[test]):
            raise UserError(f"{path} holds other clips than were scored; run stages 6 and 7 again")
        if chosen is None:
            order = np.random.default_rng(0).permutation(len(found.ids))
            chosen = np.sort(order[:MOST_CODES])
        codes[f"{result.name}, seed {result.seeds[0]}"] = found.codes[chosen]
    scene_figures.plot_code_map(
        codes, clips.scene_indices[test][chosen], clips.scene_names, comparison.out / "codes.png", comparison.watermark
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
    test, vectors = clips.in_split("test"), TagVectors.read(comparison.tag_vectors)
    return (vectors.of(clips.ids[test].tolist()), vectors.classes), clips.scene_indices[test]


def _section_or_reason(section: Callable[[Comparison], list[str]], comparison: Comparison) -> list[str]:
    """A section, or the line that says why there is none."""
    try:
        return section(comparison)
    except UserError as error:
        log.warning("left out of the report: %s", error)
        return [f"Not shown: {escape(str(error))}", ""]


@torch.inference_mode()
def attention_maps(network: SceneNetwork, tags: np.ndarray) -> np.ndarray:
    """The attention map of each clip in multiples of an even spread: (clips, c) → (clips, heads, filters per head).

    Within a head the values of a clip average to 1. No audio is needed, since the tags alone steer the attention.
    """
    fusion = network.fusion
    transform = fusion.for_concat if fusion.system.shared else fusion.for_attention
    by_head = fusion.attend.attention(transform(torch.from_numpy(tags))).unflatten(1, (fusion.attend.heads, -1))
    return (by_head * by_head.shape[2]).numpy()
