"""What waits for another import."""

import sys

from fabrec_hf.common.imports import when_imported


def test_without_wrapt_a_hook_runs_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "wrapt", None)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    loaded = []
    when_imported(loaded.append, "colorsys")
    assert loaded == [sys.modules["colorsys"]]
