"""Speed of each part of the work, and the estimated duration of a recipe."""
