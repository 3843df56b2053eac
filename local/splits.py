"""Splits a scene corpus by whole locations, so that no location is heard in training and in a test."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from local.manifests import ClipEntry
from tagasc.utils.errors import UserError
from tagasc.utils.log import log

_DRAWS = 50
_TOLERANCE = 0.25  # of the wanted number of clips
_NAMED = 5  # scenes in a warning
_REMEDY = "add clips of other locations, or give the splits in the table's column split"

Sizes = dict[str, dict[str, int]]  # clips by scene and location


def split_by_location(
    entries: list[ClipEntry],
    share: float,
    seed: int,
    region_of: Callable[[str], str] = str,
    kept: int = 1,
    name: str = "validation",
) -> tuple[list[ClipEntry], list[ClipEntry]]:
    """Hold out about ``share`` of the clips of a scene corpus, by whole locations.

    Every scene gives about its share. Among the locations, the region with the fewest held-out locations comes first,
    so that the held-out clips are spread over regions. Where a draw misses the share of a scene by far, more are made,
    and the best is taken; a warning says what it still misses. The split depends on the seed, not on the order of the
    entries.

    Args:
        entries: clips with the field location.
        share: share of the clips to hold out.
        seed: seed of the split.
        region_of: function that returns the region (city) of a location.
        kept: locations of each scene that are not held out, at least.
        name: name of the held-out split, for messages.

    Returns:
        The remaining clips and the held-out clips.

    Raises:
        UserError: a scene has too few locations.
    """
    sizes: Sizes = defaultdict(lambda: defaultdict(int))
    for entry in entries:
        sizes[entry.labels[0]][entry.custom["location"]] += 1
    for scene, locations in sorted(sizes.items()):
        if len(locations) <= kept:
            few = "one location only" if len(locations) == 1 else f"{len(locations)} locations only"
            raise UserError(
                f"scene {scene} has clips of {few}, but training, {name} and the like each need one; {_REMEDY}"
            )
    random_draws = _draws(sizes, share, random.Random(seed), region_of, kept)
    chosen = min(random_draws, key=lambda chosen: _cost(sizes, share, chosen, kept))
    _report(sizes, share, chosen, kept, name)
    held_out = [entry for entry in entries if entry.custom["location"] in chosen]
    return [entry for entry in entries if entry.custom["location"] not in chosen], held_out


def _draws(
    sizes: Sizes, share: float, shuffle: random.Random, region_of: Callable[[str], str], kept: int
) -> Iterator[set[str]]:
    """Yield sets of locations to hold out, until one has about the share of every scene."""
    for _ in range(_DRAWS):
        chosen = _draw(sizes, share, shuffle, region_of, kept)
        yield chosen
        if _cost(sizes, share, chosen, kept)[0] == 0 and not _missed(sizes, share, chosen):
            return


def _draw(sizes: Sizes, share: float, shuffle: random.Random, region_of: Callable[[str], str], kept: int) -> set[str]:
    """Draw locations scene by scene, each unless the scene comes nearer to its share without."""
    chosen: set[str] = set()
    per_region: Counter[str] = Counter()
    for _, locations in sorted(sizes.items()):
        target = share * sum(locations.values())
        count = sum(size for name, size in locations.items() if name in chosen)
        candidates, skipped = sorted(set(locations) - chosen), []
        shuffle.shuffle(candidates)
        while candidates and count < target and len(candidates) + len(skipped) > kept:
            name = min(candidates, key=lambda name: per_region[region_of(name)])
            candidates.remove(name)
            if abs(count + locations[name] - target) > abs(count - target):
                skipped.append(name)
                continue
            chosen.add(name)
            per_region[region_of(name)] += 1
            count += locations[name]
        if count == 0:  # every location is large
            name = min(skipped, key=lambda name: abs(locations[name] - target))
            chosen.add(name)
            per_region[region_of(name)] += 1
    return chosen


def _cost(sizes: Sizes, share: float, chosen: set[str], kept: int) -> tuple[int, float]:
    """Return the number of scenes that lack a location on a side, and the sum of the squared relative misses."""
    lacking, miss = 0, 0.0
    for locations in sizes.values():
        held = [size for name, size in locations.items() if name in chosen]
        lacking += not held or len(locations) - len(held) < kept
        miss += (sum(held) / sum(locations.values()) - share) ** 2
    return lacking, miss


def _missed(sizes: Sizes, share: float, chosen: set[str]) -> list[tuple[str, int, int]]:
    """Return scene, clips held out and clips in all, where the share is missed by more than the smallest location."""
    missed = []
    for scene, locations in sorted(sizes.items()):
        held, total = sum(size for name, size in locations.items() if name in chosen), sum(locations.values())
        if abs(held - share * total) > max(_TOLERANCE * share * total, min(locations.values())):
            missed.append((scene, held, total))
    return missed


def _report(sizes: Sizes, share: float, chosen: set[str], kept: int, name: str) -> None:
    """Warn of scenes that are not held out as asked for.

    Raises:
        UserError: a scene has no location on one side, since it shares its locations with other scenes.
    """
    for scene, locations in sorted(sizes.items()):
        if not chosen & set(locations) or len(set(locations) - chosen) < kept:
            raise UserError(
                f"scene {scene} shares its locations with other scenes, so that {name} cannot be held out by location;"
                f" {_REMEDY}"
            )
    missed = _missed(sizes, share, chosen)
    for scene, held, total in missed[:_NAMED]:
        place, most = max(sizes[scene].items(), key=lambda item: item[1])
        log.warning(
            "%s holds out %d of the %d clips of %s, not %d; its location %s has %d, and locations are kept whole: %s",
            name, held, total, scene, round(share * total), place, most, _REMEDY,
        )  # fmt: skip
    if len(missed) > _NAMED:
        log.warning("%s: the same holds for %d more scenes", name, len(missed) - _NAMED)
