"""What a corpus is: one module a corpus, with its layout, labels and official splits."""
