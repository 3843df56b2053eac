"""Corpora: one module per corpus, with its layout, labels and official splits."""
