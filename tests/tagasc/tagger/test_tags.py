import numpy as np
import pytest

from tagasc.tagger.tags import TagVectors, rescale, standardise
from tagasc.utils.errors import UserError
from tagasc.utils.files import digest, read_record, write_npz


def write(path, values, ids=("a", "b")):
    write_npz(path, {"step": "test"}, ids=np.array(ids), classes=np.array(["x", "y"]), values=np.array(values))
    return path


def test_tags_are_returned_in_the_requested_order(tmp_path):
    tags = TagVectors.read(write(tmp_path / "t.npz", [[0.1, 0.2], [0.3, 0.4]]))
    assert tags.of(["b", "a"]).tolist() == np.array([[0.3, 0.4], [0.1, 0.2]], np.float32).tolist()
    assert read_record(tmp_path / "t.npz") == {"step": "test"}


def test_an_error_names_the_clip_without_tags(tmp_path):
    with pytest.raises(UserError, match="no tags for 1 of 2 clips, first c"):
        TagVectors.read(write(tmp_path / "t.npz", [[0, 1], [1, 0]])).of(["a", "c"])


@pytest.mark.parametrize("values", [[[0.1, np.nan], [0, 0]], [[0.1, 1.5], [0, 0]], [[-0.1, 0], [0, 0]]])
def test_values_outside_0_to_1_are_refused(tmp_path, values):
    with pytest.raises(UserError, match="tags of clip a are not all numbers"):
        TagVectors.read(write(tmp_path / "t.npz", values))


def test_values_must_fit_ids_and_classes(tmp_path):
    with pytest.raises(UserError, match="do not fit"):
        TagVectors.read(write(tmp_path / "t.npz", [[0.1, 0.2, 0.3], [0, 0, 0]]))


IDS, CLASSES, VALUES = np.array(["a", "b"]), np.array(["x", "y"]), np.zeros((2, 2))


@pytest.mark.parametrize(
    ("ids", "classes", "values", "message"),
    [
        (IDS, CLASSES, np.array([["high", "low"], ["low", "low"]]), "values numbers"),
        (IDS, CLASSES, np.zeros((2, 2), [("mean", "f4"), ("peak", "f4")]), "values numbers"),
        (np.array([b"\xe9", b"b"]), CLASSES, VALUES, "must be text"),
        (IDS[:, None], CLASSES, VALUES, "one row of names"),
        (IDS, np.array("x"), VALUES, "one row of names"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path, ids, classes, values, message):
    np.savez(tmp_path / "t.npz", ids=ids, classes=classes, values=values)
    with pytest.raises(UserError, match=rf"t\.npz: .*{message}"):
        TagVectors.read(tmp_path / "t.npz")


def test_another_format_named_npz_is_refused(tmp_path):
    np.save(tmp_path / "t.npy", VALUES)
    path = (tmp_path / "t.npy").rename(tmp_path / "t.npz")
    with pytest.raises(UserError, match=r"t\.npz is damaged or not an"):
        TagVectors.read(path)
    assert read_record(path) is None
    with pytest.raises(UserError, match=r"t\.npz is damaged or not an"):
        digest(path)


def test_a_record_must_be_a_mapping(tmp_path):
    write_npz(tmp_path / "t.npz", ["a"])
    assert read_record(tmp_path / "t.npz") is None


def test_a_truncated_file_is_refused(tmp_path):
    whole = write(tmp_path / "t.npz", [[0.1, 0.2], [0, 0]]).read_bytes()
    for cut in (0, 40, len(whole) - 30):
        (tmp_path / "t.npz").write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"t\.npz is damaged or not an"):
            TagVectors.read(tmp_path / "t.npz")
        assert read_record(tmp_path / "t.npz") is None


def test_pickles_are_refused(tmp_path):
    np.savez(
        tmp_path / "t.npz", ids=np.array([{"a": 1}], dtype=object), classes=np.array(["x"]), values=np.zeros((1, 1))
    )
    with pytest.raises(UserError, match="is damaged or not an"):
        TagVectors.read(tmp_path / "t.npz")


def test_log_and_logit_scales_of_tags():
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    assert rescale(values, "probability") is values
    np.testing.assert_allclose(rescale(values, "log"), [[np.log(1e-6), np.log(0.5), np.log(1 - 1e-6)]], rtol=1e-5)
    edge = np.log((1 - 1e-6) / 1e-6)
    np.testing.assert_allclose(rescale(values, "logit"), [[-edge, 0, edge]], rtol=1e-5)


def embedding(path, values, kind="embedding"):
    arrays = {"ids": np.array(["a", "b"]), "classes": np.array(["value 1", "value 2"]), "values": np.array(values)}
    write_npz(path, {}, **arrays, kind=np.array(kind))
    return path


def test_an_embedding_may_hold_any_finite_numbers(tmp_path):
    tags = TagVectors.read(embedding(tmp_path / "t.npz", [[-3.0, 7.0], [0.5, 1e6]]))
    assert (tags.kind, tags.has_names) == ("embedding", False)
    assert tags.of(["b"]).tolist() == [[0.5, 1e6]]
    with pytest.raises(UserError, match="tags of clip b are not all numbers finite"):
        TagVectors.read(embedding(tmp_path / "t.npz", [[0, 0], [0, np.inf]]))
    with pytest.raises(UserError, match=r"kind must be one of probability \| embedding, not 'logits'"):
        TagVectors.read(embedding(tmp_path / "t.npz", [[0, 0], [0, 0]], "logits"))


def test_an_embedding_is_standardised_by_the_training_clips_alone():
    random = np.random.default_rng(0)
    training, values = (random.normal(5, 3, (n, 4)).astype(np.float32) for n in (20, 7))
    training[:, 2], values[:, 2] = 0.1, np.arange(7)  # constant over the training clips
    wide = training.astype(np.float64)
    deviation = np.where(np.arange(4) == 2, 1, wide.std(axis=0))
    wanted = ((values - wide.mean(axis=0)) / deviation).astype(np.float32)
    np.testing.assert_array_equal(standardise(values, training), wanted)
    np.testing.assert_array_equal(standardise(values[:2], training), wanted[:2])  # whatever other clips there are


@pytest.mark.parametrize("scale", ["log", "logit"])
def test_an_embedding_has_no_logarithm(tmp_path, scale):
    tags = TagVectors.read(embedding(tmp_path / "t.npz", [[-3.0, 7.0], [0.5, 1.0]]))
    with pytest.raises(UserError, match=f"tag_scale {scale} is for probabilities, but .* holds an embedding"):
        tags.scaled(tags.values, scale, tags.values)
    assert tags.scaled(tags.values, "probability", tags.values).tolist() == [[-1, 1], [1, -1]]
