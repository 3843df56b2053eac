"""Published numbers of clips."""

# Per scene: training and test clips of fold 1, and clips in neither (https://zenodo.org/records/2589280).
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
