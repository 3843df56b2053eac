"""Where tag vectors come from: the recipe's own tagger, a file, or any tagger that others have trained."""
