"""The report's sections on tags, attention and codes of the test clips, by scene, and on the surest wrong answers."""

from collections.abc import Callable
from pathlib import Path

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
from tagasc.tagger.tags import TagVectors
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_json
from tagasc.utils.log import log

MAX_CODES = 1500  # clips in the map of the codes
MAX_EVENTS = 20  # events in the figure of the tags
ERRORS_FOLDER, ERRORS_INDEX = "errors", "index.json"  # in the folder of the report


def analysis_sections(comparison: Comparison) -> list[str]:
    """Describe tags, attention and codes; a section without its inputs is one line that says what is missing."""
    lines = ["## Tags by scene", "", *_section_or_reason(_tags_section, comparison)]
    lines += ["## Attention by scene", "", *_section_or_reason(_attention_section, comparison)]
    return lines + ["## Map of the codes", "", *_section_or_reason(_codes_section, comparison)]


def errors_section(out: Path) -> list[str]:
    """List the surest wrong answers on the test clips, each with the page that stage 9 wrote; empty before that.

    Args:
        out: folder of the report; its folder ``errors`` holds the pages and ``index.json``.
    """
    index = out / ERRORS_FOLDER / ERRORS_INDEX
    if not index.exists():
        return []
    try:
        content = read_json(index, "stage 9 (bundle)")
        pages = [row for row in content["pages"] if (out / ERRORS_FOLDER / row["page"]).is_file()]
        rows = [(row["clip"], row["true"], row["answer"], f"{row['probability']:.2f}") for row in pages]
        title = f"{content['system']}, seed {content['seed']}, exported {content['date']}"
    except (UserError, KeyError, TypeError, ValueError) as error:
        log.warning("left out of the report: %s (%s)", index, error)
        return []
    links = [f"- [{escape(row['clip'])}]({ERRORS_FOLDER}/{row['page']})" for row in pages]
    return [
        "## Surest wrong answers",
        "",
        f"{escape(title)}: the wrong answers on test with the highest probability. The pages say what spoke for them.",
        "",
        markdown_table((("clip", "true scene", "answer", "probability"), rows)),
        *links,
        "",
    ]


def _tags_section(comparison: Comparison) -> list[str]:
    clips = comparison.best.clips
    scenes, truth = clips.scene_names, clips.scene_indices[clips.in_split("test")]
    values, vectors = _test_tags(comparison)
    if not vectors.has_names:
        share = 100 * eta_squared(values, truth, len(scenes))
        return [
            f"The tags are an embedding: its {values.shape[1]} values have no names. Of their variance over the test"
            f" clips {np.median(share):.0f} % is between scenes (median over values; at most {share.max():.0f} %).",
            "",
        ]
    classes = vectors.classes
    events = np.argsort(-eta_squared(values, truth, len(scenes)), kind="stable")[:MAX_EVENTS]
    means = mean_by_scene(values, truth, len(scenes))[:, events]
    names = [classes[event] for event in events]
    scene_figures.plot_scene_tags(means, scenes, names, comparison.out / "scene_tags.png", comparison.watermark)
    return [
        f"Mean tag of the test clips by scene, for {len(names)} of {len(classes)} events: those whose tags depend most"
        " on the scene (largest share of variance between scenes), in decreasing order.",
        "",
        "![mean tags by scene](scene_tags.png)",
        "",
        "Events whose mean tag exceeds that of the other scenes most, in standard deviations (SD). In brackets: mean"
        " tag in this scene and in the others.",
        "",
        markdown_table(distinctive_events(values, classes, truth, scenes)),
    ]


def _attention_section(comparison: Comparison) -> list[str]:
    result, clips = comparison.best_with_attention, comparison.best.clips
    if result is None:
        return ["No system with attention was run.", ""]
    scenes, truth = clips.scene_names, clips.scene_indices[clips.in_split("test")]
    path = result.runs[0].paths.weights
    network, metadata = load_scene_network(path)
    values, vectors = _test_tags(comparison)
    if metadata["tags"] != values.shape[1]:
        raise UserError(
            f"{path} takes {metadata['tags']} tags, {comparison.tag_vectors} has {values.shape[1]};"
            " run stage 5 (scenes) again"
        )
    training = values if vectors.has_names else TagVectors.read(comparison.training_tags).values
    maps = attention_maps(network, vectors.scaled(values, metadata["tag_scale"], training))
    scene_figures.plot_attention(maps, truth, scenes, comparison.out / "attention.png", comparison.watermark)
    by_filter = maps.reshape(len(maps), -1)
    between, deviation = eta_squared(by_filter, truth, len(scenes)), by_filter.std(axis=0)
    perplexity = attention_perplexity(maps)
    return [
        f"{escape(result.name)}, seed {result.seeds[0]}: attention map A of the test clips, relative to uniform"
        f" attention within a head. A head of {maps.shape[2]} filters effectively uses {perplexity.min():.1f} to"
        f" {perplexity.max():.1f} of them (exp of the entropy, mean over clips). A filter's attention has a standard"
        f" deviation of {np.median(deviation):.2f} over clips (median over filters);"
        f" {100 * np.median(between):.0f} % of its variance is between scenes (median).",
        "",
        "![attention by scene and filter](attention.png)",
        "",
    ]


def _codes_section(comparison: Comparison) -> list[str]:
    clips = comparison.best.clips
    ids, truth = (values[clips.in_split("test")] for values in (clips.ids, clips.scene_indices))
    shown = np.sort(np.random.default_rng(0).permutation(len(ids))[:MAX_CODES])
    codes = {}
    for result in comparison.baseline_and_best:
        path = result.runs[0].paths.codes_of("test")
        test = Codes.read(path)
        if not np.array_equal(test.ids, ids):
            raise UserError(f"{path} holds other clips than were scored; run stages 6 (codes) and 7 (svm) again")
        codes[f"{result.name}, seed {result.seeds[0]}"] = test.codes[shown]
    path = comparison.out / "codes.png"
    scene_figures.plot_code_map(codes, truth[shown], clips.scene_names, path, comparison.watermark)
    return [
        f"t-SNE of the codes of {len(shown)} test clips. Distances between distant groups have no meaning.",
        "",
        "![map of the codes](codes.png)",
        "",
    ]


def _test_tags(comparison: Comparison) -> tuple[np.ndarray, TagVectors]:
    """Read the tags of the test clips in their order, (clips, values), and the file's content."""
    clips, vectors = comparison.best.clips, TagVectors.read(comparison.tag_vectors)
    return vectors.of(clips.ids[clips.in_split("test")].tolist()), vectors


def _section_or_reason(section: Callable[[Comparison], list[str]], comparison: Comparison) -> list[str]:
    """Return a section, or the line that says why it is missing."""
    try:
        return section(comparison)
    except UserError as error:
        log.warning("left out of the report: %s", error)
        return [f"Not shown: {escape(str(error))}", ""]


@torch.inference_mode()
def attention_maps(network: SceneNetwork, tags: np.ndarray) -> np.ndarray:
    """Compute the attention map of each clip relative to uniform attention (paper, section 3.2).

    Args:
        network: a network with attention; its map depends on the tags alone, so no audio is needed.
        tags: float32 (clips, c), on the network's scale.

    Returns:
        (clips, heads, filters per head), with mean 1 within each head.
    """
    fusion = network.fusion
    transform = fusion.for_concat if fusion.system.shared else fusion.for_attention
    by_head = fusion.attend.attention(transform(torch.from_numpy(tags))).unflatten(1, (fusion.attend.heads, -1))
    return (by_head * by_head.shape[2]).numpy()
