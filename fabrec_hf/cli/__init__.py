"""The command line `fabrec` and its verbs.

A verb is the module of its name in this package, with `add_arguments(parser)` and `run(arguments) -> exit code`. It is
imported when it is called. At the top of these modules stands nothing that takes time to import: a help text, a
mistake and a completion come at once.
"""

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import NoReturn

from .. import __version__
from ..common.console import say
from ..common.imports import when_imported
from ..errors import FabRecError


@dataclass(frozen=True)
class Verb:
    """What `fabrec --help` says of a verb.

    Attributes:
        summary: one line.
        example: a command that works as it stands.
    """

    summary: str
    example: str


VERBS = {
    "detect": Verb(
        "find the faces in pictures and videos, and the landmarks of every face",
        "fabrec detect photo.jpg clip.mp4 --output found",
    ),
    "select": Verb(
        "choose the faces of a folder that are worth annotating",
        "fabrec select photographs --count 10 --output selected",
    ),
    "fit": Verb(
        "fit a landmark detector to a few annotated faces, of any scheme",
        "fabrec fit annotations.json --output detector",
    ),
    "evaluate": Verb(
        "score a landmark model on annotated faces",
        "fabrec evaluate --data 300w --split test --output results",
    ),
    "robustness": Verb(
        "measure how errors grow with noise in boxes and pictures, and differ between groups of people",
        "fabrec robustness --data 300w --faces faces --output robustness",
    ),
    "convert": Verb(
        "convert annotated faces of any known kind to Parquet, .pts or COCO files",
        "fabrec convert coco annotations.json faces",
    ),
    "demo": Verb(
        "try everything in a browser: detect, walk the latent space, teach, compare",
        "fabrec demo",
    ),
    "card": Verb(
        "collect what was measured of a checkpoint, and write its model card",
        "fabrec card 3fabrec-300w --output card.md",
    ),
    "push": Verb(
        "publish a checkpoint, a converted data set or a metric on the Hub",
        "fabrec push 3fabrec-300w alice/3fabrec-300w --dry-run",
    ),
    "export": Verb(
        "write a landmark model for ONNX Runtime, OpenVINO or torch.export, or as a small checkpoint",
        "fabrec export --format onnx --output exported",
    ),
    "convert-original": Verb(
        "convert a checkpoint that the authors of 3FabRec published",
        "fabrec convert-original saae.mdl 3fabrec-original",
    ),
    "completion": Verb(
        "print what makes a shell complete this command on TAB",
        "source <(fabrec completion bash)",
    ),
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors take one line, and that shows its verb's example under the help."""

    def error(self, message: str) -> NoReturn:
        """Print the one line and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser(verb: str | None) -> Parser:
    """Build the parser; only the verb to run is imported and gets its arguments.

    Args:
        verb: the verb to run, if there is one.
    """
    parser = Parser(prog="fabrec", description="Few-shot face landmark detection with 3FabRec.")
    parser.add_argument("--version", action="version", version=f"fabrec {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, entry in VERBS.items():
        subparser = subparsers.add_parser(
            name,
            help=entry.summary,
            description=entry.summary[0].upper() + entry.summary[1:] + ".",
            epilog=f"example: {entry.example}",
        )
        if name == verb:
            module = importlib.import_module(f".{name.replace('-', '_')}", __package__)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments; the process's own by default.

    Returns:
        0 if all went well; 2 after one line on stderr for each of the user's mistakes; 130 if interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # argparse takes "-5,0,20,20" for an option; with a space in front it is a value, and still the same numbers.
    words = [f" {word}" if re.match(r"-[\d.]+,", word) else word for word in words]
    completing = "_ARGCOMPLETE" in os.environ
    typed = os.environ["COMP_LINE"].split()[1:] if completing else words
    verb = next((word for word in typed if not word.startswith("-")), None)
    try:
        _quiet_libraries()
        parser = build_parser(verb)
        if completing:
            from .completion import complete

            complete(parser)
        arguments = parser.parse_args(words)
        code = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except FabRecError as error:
        return _fail(verb, str(error))
    except ModuleNotFoundError as error:
        extra = "demo" if verb == "demo" else "train"
        return _fail(verb, f"{error.name} is not installed, which this needs: pip install 'fabrec-hf[{extra}]'.")
    except ImportError as error:
        return _fail(verb, str(error))
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(verb, f"{error.filename}: {error.strerror}." if error.filename else str(error))
    except KeyboardInterrupt:
        return 130


def _fail(verb: str | None, message: str) -> int:
    say(f"fabrec {verb}: error: {' '.join(message.split())}", sys.stderr)
    return 2


def _quiet_libraries() -> None:
    """Keep loading bars and reports off the screen; what goes wrong is said in one line instead."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # read when `datasets` is imported

    def quiet_hub(logging: ModuleType) -> None:
        logging.set_verbosity_error()

    def quiet_transformers(logging: ModuleType) -> None:
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    # Set when they are loaded, if they are: most mistakes are found before.
    when_imported(quiet_hub, "huggingface_hub.utils.logging")
    when_imported(quiet_transformers, "transformers.utils.logging")
