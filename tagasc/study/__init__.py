"""Several experiments of a recipe held against each other: other taggers, other scales of their tags.

``ears.py`` finds and reads them. ``taggers.py`` compares the taggers, ``events.py`` the systems with their controls.
"""
