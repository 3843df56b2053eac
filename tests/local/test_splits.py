import pytest

from local import splits
from local.manifests import ClipEntry
from local.splits import split_by_location
from tagasc.utils.errors import UserError


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(splits.log, "propagate", True)
    return lambda: [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def entries(**scenes):
    """Clips of each scene by location: ``bus={"depot": 3}``; locations of one name are one place."""
    return [
        ClipEntry(f"{scene}-{place}-{n}", None, (scene,), {"location": place})
        for scene, places in scenes.items()
        for place, count in places.items()
        for n in range(count)
    ]


def count(part, scene):
    return sum(entry.labels == (scene,) for entry in part)


@pytest.mark.parametrize("seed", range(20))
def test_a_large_location_stays_in_training_and_the_miss_is_told(seed, warnings):
    clips = entries(bus={"depot": 90, "b": 3, "c": 4, "d": 3}, tram={f"t{n}": 5 for n in range(20)})
    rest, test = split_by_location(clips, 0.3, seed, kept=2, name="test")
    assert count(rest, "bus") >= 90
    assert 25 <= count(test, "tram") <= 35
    (warning,) = warnings()
    assert f"test holds out {count(test, 'bus')} of the 100 clips of bus, not 30; its location depot has 90" in warning
    assert "add clips of other locations, or give the splits in the table's column split" in warning
    train, validation = split_by_location(rest, 0.15, seed)
    assert {entry.labels[0] for entry in train} == {entry.labels[0] for entry in validation} == {"bus", "tram"}
    assert count(train, "bus") >= 90


@pytest.mark.parametrize("seed", range(20))
def test_locations_that_scenes_share_leave_every_scene_on_both_sides(seed):
    """One place has most of the clips of one scene and few of the other."""
    clips = entries(bus={"x": 4, "y": 5, "z": 4}, tram={"x": 1, "w": 4, "z": 4}, metro={"y": 3, "w": 1})
    rest, held = split_by_location(clips, 0.3, seed)
    for part in (rest, held):
        assert {entry.labels[0] for entry in part} == {"bus", "tram", "metro"}


def test_scenes_of_the_same_two_places_cannot_be_split_in_three():
    with pytest.raises(
        UserError, match="scene bus has clips of 2 locations only, but training, test and the like each need one"
    ):
        split_by_location(entries(bus={"x": 9, "y": 9}), 0.3, 1, kept=2, name="test")


def test_locations_shared_so_that_no_split_is_possible_are_named():
    clips = entries(a={"x": 1, "y": 1}, b={"y": 1, "z": 1}, c={"x": 1, "z": 1})
    with pytest.raises(UserError, match=r"scene . shares its locations with other scenes, so that validation cannot"):
        split_by_location(clips, 0.5, 1)


def test_a_balanced_split_is_not_warned_of(warnings):
    split_by_location(entries(bus={f"b{n}": 3 for n in range(16)}, tram={"x": 2, "y": 2, "z": 2}), 0.15, 2019)
    assert not warnings()
