"""The demonstration as a Space: its app, the photographs to try, and the package beside it."""

from pathlib import Path

from ..errors import HubError


__all__ = ["app_folder", "space_files"]

PACKAGE = Path(__file__).parents[1]
# What the package consists of; notes and backups that lie about in a checkout are none of it.
SUFFIXES = frozenset((".py", ".js", ".json", ".md", ".typed", ".safetensors", ".png", ".jpg", ".yaml"))


def app_folder() -> Path:
    """Return where the app and its photographs lie: in a wheel inside the package, in a checkout beside it."""
    inside = PACKAGE / "demo" / "space"
    return inside if inside.is_dir() else PACKAGE.parent / "space"


def space_files() -> dict[str, Path]:
    """Collect what a Space of the demonstration consists of.

    The package goes along as its sources. When the Hub builds a Space, it has nothing of the repository at hand but
    `requirements.txt`: a wheel that this names by its path would not be found.

    Returns:
        The files by their path in the repository, sorted.

    Raises:
        HubError: The app is not there: neither in a checkout nor in an installed package.
    """
    app = app_folder()
    if not (app / "app.py").is_file():
        raise HubError(f"{PACKAGE} lacks the app of the demonstration: install the package again, or use a checkout.")
    files = _listed(app, "", frozenset((*SUFFIXES, ".txt")))
    files |= {
        name: path for name, path in _listed(PACKAGE, f"{PACKAGE.name}/", SUFFIXES).items() if app not in path.parents
    }
    files["LICENSE"] = (app if PACKAGE in app.parents else PACKAGE.parent) / "LICENSE"
    return dict(sorted(files.items()))


def _listed(folder: Path, start: str, suffixes: frozenset[str]) -> dict[str, Path]:
    """Return the files of a folder that have one of the suffixes, hidden ones left out."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.suffix.lower() in suffixes}
    return {
        f"{start}{name.as_posix()}": path
        for name, path in found.items()
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.parts)
    }
