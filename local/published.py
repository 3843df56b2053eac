"""Published numbers of clips."""

# TAU Urban 2019. Per scene: training and test clips of fold 1, and clips in neither (https://zenodo.org/records/2589280).
TAU2019 = {
    "airport": (911, 421, 108),
    "bus": (928, 415, 97),
    "metro": (902, 433, 105),
    "metro_station": (897, 435, 108),
    "park": (946, 386, 108),
    "public_square": (945, 387, 108),
    "shopping_mall": (896, 441, 103),
    "street_pedestrian": (924, 429, 87),
    "street_traffic": (942, 402, 96),
    "tram": (894, 436, 110),
}

# TAU Urban 2020 Mobile. Per device: training and test clips of fold 1, and clips in neither
# (https://zenodo.org/records/3819968).
TAU2020 = {
    "a": (10215, 330, 3855),
    "b": (749, 329, 0),
    "c": (748, 329, 0),
    "s1": (750, 330, 0),
    "s2": (750, 330, 0),
    "s3": (750, 330, 0),
    "s4": (0, 330, 750),
    "s5": (0, 330, 750),
    "s6": (0, 330, 750),
}

# Five clips were withdrawn from the older release of TAU Urban 2020 Mobile, in which every device but a has 1080 clips.
TAU2020_OLDER = TAU2020 | {"b": (750, 330, 0), "c": (750, 330, 0)}
TAU2020_WITHDRAWN = (
    "airport-barcelona-1-87-c",
    "airport-barcelona-203-6132-b",
    "public_square-barcelona-108-3109-b",
    "shopping_mall-london-131-3930-c",
    "tram-barcelona-275-8394-c",
)

# TAU Urban 2022 Mobile holds the clips of 2020 as ten clips each (https://zenodo.org/records/6337421).
TAU2022 = {device: tuple(10 * count for count in counts) for device, counts in TAU2020.items()}

# Training clips of each of DCASE 2024's splits, by per cent.
TAU2022_SPLITS = {5: 6980, 10: 13960, 25: 34900, 50: 69800, 100: 139620}


def by_split(counts: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Return counts of train, test and unused by "<split> <name>"."""
    splits = ("train", "test", "unused")
    return {f"{split} {name}": n for name, of in counts.items() for split, n in zip(splits, of, strict=True)}
