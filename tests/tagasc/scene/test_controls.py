import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagasc.scene.controls import CONTROLS, apply_control

SCENES = ["bus", "park", "bus", "park", "bus", "tram"]
VALUES = np.linspace(0, 1, 12, dtype=np.float32).reshape(6, 2)
TRAINING = np.array([[0.2, 0.4], [0.4, 0.8], [0.0, 0.0]], np.float32), ["bus", "bus", "park"]


def alter(control, seed=1, split="test", values=VALUES, scenes=SCENES, training=TRAINING):
    return apply_control(control, values, scenes, training, seed, split)


def owners(rows):
    """Return the clip that each row of tags belongs to."""
    return [int(np.flatnonzero((row == VALUES).all(axis=1))[0]) for row in rows]


def test_without_a_control_tags_are_the_clips_own():
    assert (alter("") == VALUES).all()


def test_shuffled_gives_each_clip_the_tags_of_another():
    sources = owners(alter("shuffled"))
    assert sorted(sources) == list(range(6))
    assert all(clip != source for clip, source in enumerate(sources))


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), st.integers(0, 5))
def test_within_gives_each_clip_the_tags_of_another_of_its_scene(scenes, seed):
    values = np.arange(len(scenes), dtype=np.float32)[:, None]
    sources = alter("within", seed, values=values, scenes=scenes)[:, 0].astype(int).tolist()
    assert sorted(sources) == list(range(len(scenes)))
    for clip, source in enumerate(sources):
        assert scenes[clip] == scenes[source]
        assert clip != source or scenes.count(scenes[clip]) == 1


def test_constant_is_the_mean_of_the_training_tags():
    np.testing.assert_allclose(alter("constant"), np.tile([0.2, 0.4], (6, 1)), rtol=1e-6)


def test_oracle_is_the_mean_of_the_scenes_training_tags():
    scenes = ["park", "bus"]
    np.testing.assert_allclose(alter("oracle", values=VALUES[:2], scenes=scenes), [[0, 0], [0.3, 0.6]], rtol=1e-6)


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_is_the_same_for_the_same_seed_and_split(control):
    training = VALUES, SCENES
    assert (alter(control, training=training) == alter(control, training=training)).all()


def test_seeds_and_splits_are_shuffled_apart():
    values = np.arange(40, dtype=np.float32)[:, None]
    orders = {tuple(alter("shuffled", s, p, values)[:, 0]) for s in (1, 2) for p in ("train", "test")}
    assert len(orders) == 4
