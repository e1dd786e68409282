"""Publish checkpoints, data sets and metrics on the Hub: one commit a revision, whole or not at all."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from ..errors import HubError
from .contents import MAIN, Contents, gather
from .space import space_files


__all__ = ["Pushed", "check_name", "open_repository", "publish", "push", "push_space"]

KEPT = (".gitattributes",)
"""What the Hub itself writes into a repository."""

# The client changed its HTTP library once; whichever it uses, this is the base of what goes wrong on the way.
_HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]


@dataclass(frozen=True)
class Pushed:
    """A revision after a push.

    Attributes:
        repository: `owner/name`.
        revision: Its name.
        commit: The commit that it points to.
        changed: Whether that is a new one; False if the repository had the same content before.
        files: How many files it holds.
    """

    repository: str
    revision: str
    commit: str
    changed: bool
    files: int


def push(
    source: str | Path,
    repository: str,
    revision: str = MAIN,
    few_shot: Path | None = None,
    annotations_only: bool = False,
    private: bool | None = None,
    api: HfApi | None = None,
) -> list[Pushed]:
    """Publish a checkpoint, a converted data set or a metric.

    Each revision becomes exactly what is pushed, by one commit: files that it had before and that are not part of it
    are removed. The same content makes no new commit.

    Args:
        source: Folder of a checkpoint or the name of an embedded one; folder that `fabrec convert` wrote; folder or
            name of an `evaluate` module of this package.
        repository: `owner/name`, or a name alone for the user's own; made if it is not there.
        revision: Branch to push to, `"main"` by default.
        few_shot: Folder of few-shot checkpoints, which become revisions called as their folders.
        annotations_only: Of a data set, leave the pictures out.
        private: Whether a repository that is made is private; if so, a public one that is there already is refused.
        api: Which Hub, and with which token; by default what the environment says.

    Returns:
        What was published, the main revision last.

    Raises:
        HubError: The Hub cannot be reached or refuses.
        FabRecError: The source is not fit to be published.
    """
    check_name(repository)
    api = api or HfApi()
    named = _full_name(repository, api)
    with gather(source, named, revision, few_shot, annotations_only) as contents:
        _open(named, contents.kind, private, api, contents.sdk)
        return publish(contents, named, api)


def push_space(repository: str, private: bool | None = None, api: HfApi | None = None) -> Pushed:
    """Publish the demonstration as a Space that starts as it is: the app with this package beside it.

    Args:
        repository: `owner/name`, or a name alone for the user's own; made if it is not there.
        private: Whether a Space that is made is private; if so, a public one that is there already is refused.
        api: Which Hub, and with which token; by default what the environment says.

    Raises:
        HubError: The Hub cannot be reached or refuses, or the app is not there.
    """
    check_name(repository)
    api = api or HfApi()
    contents = Contents("space", {MAIN: space_files()}, "gradio")
    named = _full_name(repository, api)
    _open(named, contents.kind, private, api, contents.sdk)
    return publish(contents, named, api)[0]


def open_repository(repository: str, private: bool | None = None, api: HfApi | None = None) -> str:
    """Make a model's repository if it is not there, after finding out whether one may write to it.

    Args:
        repository: `owner/name`, or a name alone for the user's own.
        private: Whether it is made private; if so, a public one that is there already is refused.
        api: Which Hub, and with which token.

    Returns:
        `owner/name`.

    Raises:
        HubError: The Hub cannot be reached or refuses.
    """
    check_name(repository)
    api = api or HfApi()
    named = _full_name(repository, api)
    _open(named, "model", private, api)
    return named


def check_name(repository: str) -> None:
    """Refuse what cannot be the name of a repository.

    Raises:
        HubError: It has more than two parts, or other characters than the Hub allows.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise HubError(_no_name(repository)) from error


def _open(repository: str, kind: str, private: bool | None, api: HfApi, sdk: str | None = None) -> None:
    with _explained(repository, api):
        api.create_repo(repository, repo_type=kind, private=private, exist_ok=True, space_sdk=sdk)
        shown = private and not api.repo_info(repository, repo_type=kind).private
    if shown:
        raise HubError(
            f"{repository} is there already and public: make it private in its settings, or leave --private out."
        )


def publish(contents: Contents, repository: str, api: HfApi) -> list[Pushed]:
    """Push gathered files to a repository that exists.

    Args:
        contents: From `gather`.
        repository: `owner/name`.
        api: Which Hub, and with which token.

    Raises:
        HubError: The Hub cannot be reached or refuses. Revisions that were not reached stay as they were.
    """
    with _explained(repository, api):
        return [
            _publish_revision(contents.kind, repository, revision, files, api)
            for revision, files in contents.revisions.items()
        ]


def _publish_revision(kind: str, repository: str, revision: str, files: Mapping[str, Path], api: HfApi) -> Pushed:
    if revision != MAIN:
        # From the first, empty commit: were the push cut short here, the branch must not show the main model.
        first = api.list_repo_commits(repository, repo_type=kind)[-1].commit_id
        api.create_branch(repository, branch=revision, revision=first, repo_type=kind, exist_ok=True)
    head = api.repo_info(repository, repo_type=kind, revision=revision)
    before = set(api.list_repo_files(repository, repo_type=kind, revision=head.sha))
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(name, path) for name, path in files.items()
    ]
    operations += [CommitOperationDelete(name) for name in sorted(before - set(files) - set(KEPT))]
    done = api.create_commit(
        repository,
        operations,
        commit_message="Publish with fabrec push",
        repo_type=kind,
        revision=revision,
        parent_commit=head.sha,
    )
    return Pushed(repository, revision, done.oid, done.oid != head.sha, len(files))


def _full_name(repository: str, api: HfApi) -> str:
    """Put the user's name in front of a name without an owner.

    Tells early what the Hub tells late: an existing repository of somebody else can be opened, but not written to.
    """
    with _explained(repository, api):
        user = api.whoami()
    named = repository if "/" in repository else f"{user['name']}/{repository}"
    owners = {user["name"], *(entry["name"] for entry in user.get("orgs", ()))}
    role = user.get("auth", {}).get("accessToken", {}).get("role")
    if named.partition("/")[0] not in owners or role == "read":
        raise HubError(_no_permission(named))
    return named


def _no_permission(repository: str) -> str:
    return f"The token may not write to {repository}: use one with write permission, or another owner."


def _no_name(repository: str) -> str:
    return f"{repository!r} cannot be the name of a repository: give owner/name, of letters, digits, '-', '_', '.'."


@contextmanager
def _explained(repository: str, api: HfApi) -> Iterator[None]:
    """Turn what goes wrong with the Hub into one line that says what to do."""
    try:
        yield
    except (LocalTokenNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, HFValidationError, _HTTPError) as error:
        raise HubError(_reason(error, repository, api)) from error
    except RuntimeError as error:
        # The client wraps what happens to a single file.
        if error.__cause__ is None:
            raise
        cause = _reason(error.__cause__, repository, api)
        raise HubError(
            f"An upload to {repository} failed ({cause}); push again, what was not reached is as it was."
        ) from error
    except ValueError as error:
        raise HubError(f"The Hub does not accept the files of {repository}: {' '.join(str(error).split())}") from error


def _reason(error: BaseException, repository: str, api: HfApi) -> str:
    if isinstance(error, LocalTokenNotFoundError):
        return "No token of the Hub was found: log in with `hf auth login`, or set HF_TOKEN."
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it to push."
    if isinstance(error, HFValidationError):
        return _no_name(repository)
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return "The token is not valid (any more): log in again with `hf auth login`, or set HF_TOKEN."
    if status == 403:
        return _no_permission(repository)
    if isinstance(error, RepositoryNotFoundError):
        return f"There is no repository {repository}, or the token may not see it."
    if status in (409, 412):
        return f"{repository} was changed by somebody else meanwhile: push again."
    if status is not None:
        return f"The Hub refuses {repository} with status {status}: {' '.join(str(error).split())}"
    return f"The Hub at {api.endpoint} cannot be reached ({type(error).__name__}): {' '.join(str(error).split())}"
