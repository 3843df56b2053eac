from hypothesis import given, settings
from hypothesis import strategies as st

from local.manifests import Entry, split_by_location
from local.tau2019 import city_of


@settings(deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 9), min_size=2, max_size=12))
def test_no_location_is_split_and_order_does_not_matter(seed, sizes):
    entries = [
        Entry(f"{scene}-{place}-{n}", None, (scene,), {"location": f"city{place % 3}-{scene}{place}"})
        for scene in ("bus", "tram")
        for place, size in enumerate(sizes)
        for n in range(size)
    ]
    train, validation = split_by_location(entries, 0.15, seed, city_of)
    assert len(train) + len(validation) == len(entries)
    assert not {e.custom["location"] for e in train} & {e.custom["location"] for e in validation}
    for part in (train, validation):
        assert {e.labels[0] for e in part} == {"bus", "tram"}
    again = split_by_location(entries[::-1], 0.15, seed, city_of)
    assert {e.id for e in again[1]} == {e.id for e in validation}
