"""The back end: codes, the SVM, scoring by the paper's protocol."""
