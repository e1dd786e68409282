"""Fixtures of the tests of training scripts."""

import pytest
import torch


@pytest.fixture
def same_threads():
    """Give torch its threads back after a script's `main`, which takes all cores, has run in this process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
