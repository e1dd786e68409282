"""The pages of documentation: their links, headings, code and commands."""

import re
import shlex
from pathlib import Path


ROOT = Path(__file__).parents[2]

PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *(ROOT / name / "README.md" for name in ("examples", "space"))]
    + [ROOT / "training/README.md"]
)
"""What a reader of the project reads. Model cards and cards of metrics have tests of their own."""


def name_of(page: Path) -> str:
    """Name a page as a reader sees it: its path from the root of the project."""
    return page.relative_to(ROOT).as_posix()


def code_blocks(page: Path, language: str) -> list[str]:
    """Return the contents of a page's code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def without_code(page: Path) -> str:
    """Return the prose of a page: what stands in no code block and no code span."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]+`", "", text)


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures."""
    text = without_code(page)
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'\bsrc="([^"]+)"', text)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[list[str]]:
    """Return the commands of a page's `bash` blocks as words, without comments, shell functions filled in."""
    found: list[list[str]] = []
    for block in code_blocks(page, "bash"):
        functions: dict[str, str] = {}
        for line in block.replace("\\\n", " ").splitlines():
            if definition := re.fullmatch(r'(\w+)\(\) \{ (.*) "\$@"; \}', line):
                functions[definition[1]] = definition[2]
                continue
            for part in re.split(r" && ", line):
                words = shlex.split(part, comments=True)
                if words and words[0] in functions:
                    words = [*shlex.split(functions[words[0]]), *words[1:]]
                if words:
                    found.append(words)
    return found
