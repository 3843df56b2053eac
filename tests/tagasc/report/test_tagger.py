import numpy as np

from tagasc.report.tagger import confused_events, event_table, example_table
from tagasc.tagger.tags import TagVectors

CLASSES = ["bell", "dog", "rain"]
VALUES = np.array([[0.1, 0.9, 0.5], [0.2, 0.7, 0.2], [0.6, 0.1, 0.3], [0.9, 0.8, 0.7]], np.float32)
TRUTH = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]], bool)
TAGS = TagVectors(["a", "b", "c", "d"], CLASSES, VALUES)


def test_confusions_are_absent_classes_ranked_above_present_ones():
    """Clip a: dog and rain above bell. Clip b: dog above rain, bell tied with it. Clip c: correct."""
    assert confused_events(TAGS, TRUTH) == [(1, 0, 1), (1, 0, 2), (1, 2, 1)]


def test_a_present_class_above_another_is_not_a_confusion():
    truth = TRUTH.copy()
    truth[0] = [1, 1, 0]
    assert confused_events(TAGS, truth) == [(1, 0, 2), (1, 2, 1)]


def test_classes_have_labels_lwlrap_and_most_frequent_confusion():
    _, rows = event_table(TAGS, TRUTH)
    assert rows == [("bell", "2", "0.667", "dog"), ("dog", "0", "", ""), ("rain", "1", "0.333", "dog")]


def test_examples_show_labels_and_highest_tags():
    _, rows = example_table(TAGS, TRUTH, count=2)
    assert rows == [("a", "bell", "dog 0.90, rain 0.50, bell 0.10"), ("c", "bell", "bell 0.60, rain 0.30, dog 0.10")]
