"""Where checkpoints are: those that come with the package, folders, and repositories on a hub."""

from pathlib import Path

from ..errors import CheckpointError
from ..model import embedded_fabrec
from ..model.embedded_fabrec import embedded_names


def weights_path(name: str) -> Path:
    """Return the folder of a checkpoint that comes with the package.

    Args:
        name: Such as `"3fabrec-300w"` (landmarks) or `"3fabrec-autoencoder"`.

    Raises:
        CheckpointError: There is none of that name; the message lists those there are.

    Example:
        >>> import fabrec_hf
        >>> model = fabrec_hf.FabRecForLandmarkDetection.from_pretrained(fabrec_hf.weights_path("3fabrec-300w"))
    """
    names = embedded_names()
    if name not in names:
        raise CheckpointError(f"No checkpoint {name!r} comes with the package; there is {_listed(names)}.")
    return embedded_fabrec.WEIGHTS / name


def resolve_checkpoint(name_or_path: str | Path) -> str:
    """Turn what a user calls a checkpoint into what `from_pretrained` takes.

    A folder goes first, then the name of a checkpoint that comes with the package, then a repository `owner/name`.

    Args:
        name_or_path: Folder, embedded name or repository.

    Returns:
        The path of a folder, or the repository as it is.

    Raises:
        CheckpointError: It can be none of these, or the folder holds no checkpoint.
    """
    text = str(name_or_path)
    path = Path(text).expanduser()
    if text and path.is_dir():
        if not (path / "config.json").is_file():
            raise CheckpointError(f"{path} holds no checkpoint: it has no config.json.")
        return str(path)
    names = embedded_names()
    if text in names:
        return str(weights_path(text))
    # Path() would hide the difference between "owner/name" and "./owner/name".
    parts = text.split("/")
    if not isinstance(name_or_path, Path) and len(parts) == 2 and all(part.strip(".~") for part in parts):
        return text
    raise CheckpointError(
        f"No checkpoint {text!r}: give a folder with a config.json, a repository as owner/name, or {_listed(names)}."
    )


def _listed(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names) if names else "none"


__all__ = ["embedded_names", "resolve_checkpoint", "weights_path"]
