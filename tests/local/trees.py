"""Trees of the TAU sets with the published names, layouts and counts, made from rules; every clip is a link to one sound."""

import csv
from itertools import cycle, islice

import numpy as np
import soundfile

from local.published import TAU2019, TAU2020_WITHDRAWN

SCENES = tuple(TAU2019)
CITIES = ("barcelona", "helsinki", "lisbon", "london", "lyon", "milan", "paris", "prague", "stockholm", "vienna")
HEADER = ("filename", "scene_label", "identifier", "source_label")
LINKS = 30_000  # to one file; file systems allow some 65,000
SIMULATED = ("s1", "s2", "s3", "s4", "s5", "s6")
TEST_WITHDRAWN = TAU2020_WITHDRAWN[1], TAU2020_WITHDRAWN[4]  # a b and a c; the real tables do not matter here


def row(scene, identifier, segment, device, second=None):
    """Return a row of meta.csv."""
    number = "" if second is None else f"-{second}"
    return f"audio/{scene}-{identifier}-{segment}{number}-{device}.wav", scene, identifier, device


def tau2019(clips=1440):
    """Return the rows of each part, with at most ``clips`` of each scene and part."""
    location, parts = 0, {"train": [], "test": [], "unused": []}
    for scene, counts in TAU2019.items():
        for (part, rows), count in zip(parts.items(), counts, strict=True):
            seen = [city for city in CITIES if city != "milan"]
            cities = cycle(["milan"] if part == "unused" else CITIES if part == "test" else seen)
            for number in range(min(count, clips)):
                if number % 12 == 0:
                    location, city = location + 1, next(cities)
                rows.append(row(scene, f"{city}-{location}", number, "a"))
    return parts


def tau2020(older=False):
    """Return the rows of each part, as corpora are described: 365 training and 146 test locations in ten cities."""
    withdrawn = {
        stem: (*stem.split("-")[:1], "-".join(stem.split("-")[1:3]), *stem.split("-")[3:]) for stem in TAU2020_WITHDRAWN
    }
    lost = {"train": [w for stem, w in withdrawn.items() if stem not in TEST_WITHDRAWN]}
    lost["test"] = [withdrawn[stem] for stem in TEST_WITHDRAWN]
    parts, segment = {"train": [], "test": [], "unused": []}, 20_000
    places = {}
    for part, count, first in (("train", 365, 1000), ("test", 146, 2000)):
        more = [(SCENES[n % 10], f"{CITIES[n // 10 % 10]}-{first + n}") for n in range(count - len(lost[part]))]
        places[part] = [(scene, identifier) for scene, identifier, *_ in lost[part]] + more
    for part, segments, copies in (("train", 10_215, 750), ("test", 330, 330)):
        own = [(scene, identifier, number) for scene, identifier, number, _ in lost[part]]
        own += [(*place, segment + n) for n, place in enumerate(islice(cycle(places[part]), segments - len(own)))]
        segment += segments
        parts[part] += [row(*each, "a") for each in own]
        for device in ("b", "c"):
            gone = [each for each in lost[part] if each[3] == device]
            others = [each for each in own if (*each, device) not in gone]
            parts[part] += [row(*each, device) for each in others[: copies - len(gone)]]
            parts[part] += [row(*each) for each in gone] if older else []
        for device in SIMULATED:
            seen = part == "test" or device < "s4"
            parts[part if seen else "unused"] += [row(*each, device) for each in own[:copies]]
    for part, count in (("test", 3790), ("train", 65)):  # never listed
        parts["unused"] += [row(*place, segment + n, "a") for n, place in enumerate(islice(cycle(places[part]), count))]
        segment += count
    return parts


def in_seconds(parts):
    """Return the rows of 2022: each clip of 2020 as ten."""
    return {
        part: [
            row(scene, identifier, name.split("-")[-2], device, n)
            for name, scene, identifier, device in rows
            for n in range(10)
        ]
        for part, rows in parts.items()
    }


def few(parts, locations, of=10):
    """Return the rows of the first so many locations of each scene and part; of unused ones, ``of`` rows."""
    kept = {"unused": parts["unused"][:of]}
    for part in ("train", "test"):
        chosen = {}
        for _, scene, identifier, _ in parts[part]:
            known = chosen.setdefault(scene, [])
            if identifier not in known and len(known) < locations:
                known.append(identifier)
        kept[part] = [each for each in parts[part] if each[2] in chosen[each[1]]]
    return {part: kept[part] for part in parts}


def write_table(path, header, rows, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator=end).writerows([header, *rows])


def write_tables(corpus, parts, end="\n"):
    """Write the tables of a set; return the file names."""
    rows = sum(parts.values(), [])
    write_table(corpus / "meta.csv", HEADER, rows, end)
    for table, part, columns in (("train", "train", 2), ("evaluate", "test", 2), ("test", "test", 1)):
        setup = corpus / f"evaluation_setup/fold1_{table}.csv"
        write_table(setup, HEADER[:columns], [each[:columns] for each in parts[part]], end)
    return [each[0] for each in rows]


def link_all(corpus, names, rate, channels, frames=480):
    """Write a short sound for every so many names, and links to it."""
    for number, name in enumerate(names):
        if number % LINKS == 0:
            sound = corpus.parent / f"sound{corpus.name}{number}.wav"
            corpus.mkdir(exist_ok=True)
            soundfile.write(sound, np.zeros((frames, channels)), rate, subtype="PCM_24")
        (corpus / name).parent.mkdir(parents=True, exist_ok=True) if number == 0 else None
        (corpus / name).hardlink_to(sound)


def write_corpus(corpus, parts, rate, channels, end="\n"):
    """Write the tables and the clips of a set; return the file names."""
    names = write_tables(corpus, parts, end)
    link_all(corpus, names, rate, channels)
    return names
