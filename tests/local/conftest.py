"""Shared by the tests of corpora."""

import pytest


@pytest.fixture
def without_headers(monkeypatch):
    """Programs read no headers and write no manifests; by their folder, the entries that they would write."""
    written = {}

    def write(out, corpus, splits, *_):
        written[out] = splits

    monkeypatch.setattr("local.manifests.write", write)
    return written
