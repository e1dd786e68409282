"""`fabrec completion`: completion on TAB for bash, zsh and fish, by argcomplete."""

import argparse
from typing import Any

import argcomplete

from ..common.console import say


__all__ = ["add_arguments", "complete", "run"]

NOTES = """The line goes into the shell's start-up file: `source <(fabrec completion bash)` into ~/.bashrc, the same
with zsh into ~/.zshrc below compinit, `fabrec completion fish | source` into ~/.config/fish/config.fish. Verbs,
options, their choices, files, and the names of the checkpoints that come with the package are completed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a completion to a parser."""
    parser.description = f"{parser.description} {NOTES}"
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell that shall complete")


def run(arguments: argparse.Namespace) -> int:
    """Print the shell code.

    Args:
        arguments: Parsed arguments of `add_arguments`.

    Returns:
        The exit code, 0.
    """
    say(argcomplete.shellcode(["fabrec"], shell=arguments.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell, which asks through the environment, and end the process."""
    for verb in _verbs(parser):
        for action in verb._actions:
            if action.dest in ("model", "autoencoder", "checkpoint"):
                action.completer = _checkpoints  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _verbs(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    choices = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return [verb for known in choices for verb in known.values()]


def _checkpoints(prefix: str, **_: Any) -> list[str]:
    """Names of embedded checkpoints, and folders."""
    from ..model.embedded_fabrec import embedded_names

    return [*embedded_names(), *argcomplete.FilesCompleter(directories=True)(prefix)]
