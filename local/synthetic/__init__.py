"""Synthetic corpora, composed of synthesised or recorded sounds."""
