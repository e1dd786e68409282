"""What the server keeps of a visitor: photographs, annotations and detectors, under a key that only they know."""

import io
import logging
import re
import secrets
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..common.output_folder import write_files
from ..errors import CheckpointError, DataError
from .annotation import AnnotatedFace, Project
from .fair_lock import FairLock
from .uploads import Limits, Uploads, decode_picture, display_name


if TYPE_CHECKING:
    from .fit_queue import FitJob
    from .teaching import Proposer

__all__ = ["Session", "SessionStore"]

logger = logging.getLogger(__name__)

_KEY = re.compile(r"[A-Za-z0-9_-]{43}")
SWEEP_SECONDS = 600


class Session:
    """One visitor's work. Tabs of the same browser share it; hold `lock` while changing it.

    Args:
        key: Its secret name.
        folder: Where its files lie.
        limits: What it may hold.

    Attributes:
        project: The annotations.
        lock: Held by whoever changes the session.
        job: The last training that was asked for.
        learning_along: The last one that proposes positions.
        proposer: What proposes positions while points are placed.
        cuts: Pictures of faces that the page shows, by row and side; removed with the session.
        answered: Number of the last action on the board.
    """

    def __init__(self, key: str, folder: Path, limits: Limits):
        self.key, self.folder, self.limits = key, folder, limits
        self.lock = FairLock()
        self.project = Project.load(folder)
        self.used = time.time()
        self.job: FitJob | None = None
        self.learning_along: FitJob | None = None
        self.proposer: Proposer | None = None
        self.cuts: dict[tuple[int, int], Path] = {}
        self.answered = 0
        self._opened: tuple[str, Image.Image] | None = None

    @property
    def photographs(self) -> Path:
        """The folder of the photographs."""
        return self.folder / "photographs"

    @property
    def detector(self) -> Path:
        """The folder of the detector that was taught, which need not exist."""
        return self.folder / "detector"

    @property
    def has_detector(self) -> bool:
        """Whether one was taught."""
        return (self.detector / "config.json").is_file()

    def photograph(self, face: AnnotatedFace) -> Image.Image:
        """Open the photograph of a face, upright."""
        opened = self._opened  # a person stays with one photograph for many clicks
        if opened is None or opened[0] != face.file:
            content = (self.photographs / face.file).read_bytes()
            opened = face.file, decode_picture(content, face.name, self.limits).image
            self._opened = opened
        return opened[1]

    def proposal(self) -> np.ndarray | None:
        """Return the positions (L, 2) that are proposed for the face at hand; None where nothing proposes any."""
        face = self.project.face
        return self.proposer.propose(face, self.photograph(face)) if self.proposer else None

    def add_photographs(self, paths: Sequence[str], uploads: Uploads) -> tuple[list[tuple[str, str]], list[str]]:
        """Keep uploaded photographs as they are; photographs that are not upright are turned and written anew.

        Args:
            paths: The uploads.
            uploads: Where they may lie.

        Returns:
            (file, name) of the photographs kept, and a line for each that could not be used.

        Raises:
            DataError: If the session would hold too many, or too much.
        """
        self.photographs.mkdir(parents=True, exist_ok=True)
        present = list(self.photographs.iterdir())
        if len(present) + len(paths) > self.limits.photographs:
            raise DataError(f"A session holds {self.limits.photographs} photographs; these would be too many.")
        total = sum(file.stat().st_size for file in present)
        kept, problems = [], []
        for path in paths:
            try:
                content, suffix, name = _stored(path, uploads)
            except ValueError as error:  # every error of a user is one
                problems.append(str(error))
                continue
            total += len(content)
            if total > self.limits.session_bytes:
                raise DataError(f"A session holds {self.limits.session_bytes // 2**20} MB of photographs.")
            file = f"{secrets.token_hex(8)}{suffix}"
            write_files(self.photographs, {file: content})
            kept.append((file, name))
        return kept, problems

    def checkpoints(self) -> dict[str, Path]:
        """Return the detectors of the session by the names that the pages show."""
        found = {}
        if self.has_detector:
            found["taught in this session"] = self.detector
        for folder in sorted((self.folder / "uploaded").glob("*/config.json")):
            found[f"uploaded: {folder.parent.name}"] = folder.parent
        return found

    def add_checkpoint(self, name: str, files: Mapping[str, bytes]) -> Path:
        """Keep an uploaded checkpoint, whose files were checked.

        Raises:
            CheckpointError: If there are too many.
        """
        name = display_name(name)
        others = [label for label in self.checkpoints() if label.startswith("uploaded") and not label.endswith(name)]
        if len(others) >= self.limits.checkpoints:
            raise CheckpointError(f"A session holds {self.limits.checkpoints} uploaded checkpoints: start over.")
        folder = self.folder / "uploaded" / name
        shutil.rmtree(folder, ignore_errors=True)  # whole weights of before would go before shards of now
        write_files(folder, files)
        return folder

    def drop_checkpoint(self, folder: Path) -> None:
        """Forget an uploaded checkpoint that cannot be used."""
        shutil.rmtree(folder, ignore_errors=True)

    def drop_cuts(self) -> None:
        """Remove the pictures that the page was shown."""
        for file in self.cuts.values():
            file.unlink(missing_ok=True)
        self.cuts.clear()

    def clear(self) -> None:
        """Forget everything, and stop what is learning."""
        for job in (self.job, self.learning_along):
            if job is not None:
                job.cancel()
        self.job = self.learning_along = self.proposer = self._opened = None
        self.drop_cuts()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.project = Project.load(self.folder)


class SessionStore:
    """The sessions of all visitors. Safe to use from threads.

    Args:
        root: Where their folders lie.
        limits: What one of them may hold, and how many there may be.
        max_age: Seconds without use after which a session is removed.
    """

    def __init__(self, root: Path, limits: Limits, max_age: float = 86400.0):
        self.root, self.limits, self.max_age = root, limits, max_age
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._swept = 0.0
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def open(self, key: object) -> Session:
        """Return the session of a key; for anything that is not the key of one, a new session.

        Raises:
            DataError: If there are too many sessions.
        """
        with self._lock:
            self._sweep()
            if isinstance(key, str) and _KEY.fullmatch(key):
                if key not in self._sessions and (self.root / key).is_dir():
                    self._sessions[key] = self._load(key)
                if key in self._sessions:
                    self._sessions[key].used = time.time()
                    return self._sessions[key]
            return self._new()

    def keep(self, key: str) -> Session:
        """Return the session of a key that the owner of the demonstration chose; it is made if it is not there.

        Raises:
            ValueError: The key has not the form of one.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not the key of a session.")
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = self._load(key)
            self._sessions[key].used = time.time()
            return self._sessions[key]

    def _new(self) -> Session:
        if len(self._sessions) >= self.limits.sessions:
            idle = [session for session in self._sessions.values() if not session.folder.exists()]
            if not idle:
                raise DataError("Too many people are here just now: come back later.")
            # Somebody who only looked loses nothing.
            del self._sessions[min(idle, key=lambda session: session.used).key]
        key = secrets.token_urlsafe(32)
        self._sessions[key] = Session(key, self.root / key, self.limits)
        return self._sessions[key]

    def _load(self, key: str) -> Session:
        try:
            return Session(key, self.root / key, self.limits)
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("The file of a session cannot be read and is put aside: %s", type(error).__name__)
            (self.root / key / "project.json").replace(self.root / key / "project.damaged.json")
            return Session(key, self.root / key, self.limits)

    def _sweep(self) -> None:
        """Remove what nobody has used for long, at most every ten minutes."""
        now = time.time()
        if now - self._swept < SWEEP_SECONDS:
            return
        self._swept = now
        for key, session in list(self._sessions.items()):
            if now - session.used > self.max_age:
                session.drop_cuts()
                del self._sessions[key]
        for folder in self.root.iterdir():
            if folder.name not in self._sessions and now - _last_change(folder) > self.max_age:
                shutil.rmtree(folder, ignore_errors=True)


def _last_change(folder: Path) -> float:
    """When anything in the folder of a session was changed, or begun."""
    return max([folder.stat().st_mtime, *(file.stat().st_mtime for file in folder.glob("*"))])


def _stored(path: str, uploads: Uploads) -> tuple[bytes, str, str]:
    """Return an upload as it is kept, its suffix, and its name."""
    real = uploads.check(path)
    content = real.read_bytes()
    photograph = decode_picture(content, real.name, uploads.limits)
    suffix, upright = _is_plain(content)
    if upright:
        return content, suffix, photograph.name
    file = io.BytesIO()
    photograph.image.save(file, "JPEG", quality=95)
    return file.getvalue(), ".jpg", photograph.name


def _is_plain(content: bytes) -> tuple[str, bool]:
    """Return the suffix of a picture, and whether its pixels are stored upright in a form that every tool reads."""
    with Image.open(io.BytesIO(content)) as image:  # which was opened before, so that HEIC is known, too
        suffix = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}.get(image.format or "")
        return suffix or ".jpg", suffix is not None and image.getexif().get(0x0112, 1) == 1
