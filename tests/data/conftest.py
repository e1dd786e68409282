"""Fixtures the tests of data share."""

import pytest


@pytest.fixture
def root(tmp_path):
    """An empty folder, beside which there is room for others."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder
