"""How fast it goes, and how long a recipe will take."""
