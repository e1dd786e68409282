"""The documentation points at what is there: links, anchors, options, scripts, targets and extras."""

import importlib
import re
from itertools import takewhile

import pytest

from fabrec_hf.cli import VERBS, build_parser
from support.documents import PAGES, ROOT, anchors, code_blocks, commands, links, name_of


if not (ROOT / "pyproject.toml").is_file():
    pytest.skip("only in a checkout", allow_module_level=True)

EVERY_PAGE = [pytest.param(page, id=name_of(page)) for page in PAGES]
CARDS = [pytest.param(page, id=name_of(page)) for page in sorted(ROOT.glob("model_cards/*.md"))]


def parse(parser, words: list[str]) -> None:
    """Parse the words; what the parser refuses fails with the command and not with an exit."""
    try:
        parser(words)
    except SystemExit as refusal:
        pytest.fail(f"{' '.join(words)}: refused with exit code {refusal.code}")


@pytest.mark.parametrize("page", [*EVERY_PAGE, *CARDS])
def test_links_lead_somewhere(page):
    for target in links(page):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def test_the_readme_fits_a_screen_or_two_and_leads_to_every_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    pages = {f"docs/{path.name}" for path in ROOT.glob("docs/*.md")} | {"training/README.md"}
    assert pages <= {target.partition("#")[0] for target in links(ROOT / "README.md")}


def test_every_command_of_the_package_has_an_example():
    shown = {words[1] for page in PAGES for words in commands(page) if words[0] == "fabrec"}
    assert shown == set(VERBS)


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_commands_of_the_package_have_the_options_that_are_shown(page):
    for words in commands(page):
        if words[0] == "fabrec":
            parse(build_parser(words[1]).parse_args, words[1:])


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_commands_in_the_text_have_the_options_that_are_shown(page):
    for span in re.findall(r"`fabrec ([^`]+)`", page.read_text(encoding="utf-8")):
        verb, *words = span.split()
        if verb == "VERB":
            continue
        assert verb in VERBS, span
        subparsers = build_parser(verb)._subparsers
        assert subparsers is not None
        known = subparsers._group_actions[0].choices[verb]._option_string_actions
        assert {word for word in words if word.startswith("--")} <= set(known), span


def parse_script(script: str, words: list[str]) -> None:
    """Parse the arguments of a script by its own parser; of one that parses in `main`, look at its options alone."""
    source = (ROOT / script).read_text(encoding="utf-8")
    if script == "training/evaluate_landmarks.py":
        parse(build_parser("evaluate").parse_args, ["evaluate", *words])
    elif own := re.search(r"parse_arguments\((\w+),", source):
        module = importlib.import_module(script.rpartition("/")[2].removesuffix(".py"))
        utilities = importlib.import_module("training_utils")
        parse(lambda given: utilities.parse_arguments(getattr(module, own[1]), "", given), words)
    else:
        options = set(re.findall(r'"(--[\w-]+)"', source)) | {"--help"}
        assert {word for word in words if word.startswith("--")} <= options, words


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_scripts_have_the_arguments_that_are_shown(page, monkeypatch):
    monkeypatch.chdir(ROOT)  # the names of configurations are relative to it
    for words in commands(page):
        before = list(takewhile(lambda word: not word.endswith(".py"), words))
        if len(before) < len(words) and words[len(before)].startswith("training/"):
            script = words[len(before)]
            assert (ROOT / script).is_file(), script
            parse_script(script, words[len(before) + 1 :])


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_targets_and_extras_exist(page):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    project = (ROOT / "pyproject.toml").read_text()
    extras = re.findall(r"^(\w+) = \[", project.partition("[project.optional-dependencies]")[2], flags=re.MULTILINE)
    for words in commands(page):
        if words[0] == "make":
            assert words[1] in targets
        if words[:2] == ["pip", "install"] and words[2].startswith(".["):
            assert words[2][2:-1] in extras


def test_the_scheme_file_is_one(tmp_path):
    from fabrec_hf.data.scheme_files import load_scheme

    (block,) = code_blocks(ROOT / "docs/own-data.md", "yaml")
    (tmp_path / "ears.yaml").write_text(block)
    scheme = load_scheme(str(tmp_path / "ears.yaml"))
    assert scheme.name == "ears" and scheme.point_names == ("left_ear", "right_ear", "chin")
    assert sorted(scheme.edges) == [(0, 2), (2, 1)]
