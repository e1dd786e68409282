"""Code that runs when another module is imported."""

import importlib
from collections.abc import Callable
from types import ModuleType


__all__ = ["when_imported"]


def when_imported(hook: Callable[[ModuleType], None], name: str) -> None:
    """Call a function with a module as soon as that is imported; at once if it is already.

    Without `wrapt`, which waits for it, the module is imported here and now: the same, but it takes its time at once.

    Args:
        hook: The function.
        name: The module.
    """
    try:
        from wrapt import register_post_import_hook
    except ImportError:
        hook(importlib.import_module(name))
    else:
        register_post_import_hook(hook, name)
