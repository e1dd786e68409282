"""The part of the Teach page that trains, shows the results and hands them out."""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd

from ...errors import DataError, FabRecError, HubError
from ...inference.face_records import count_faces
from ...inference.score_words import score_note
from ..fit_queue import FitJob
from ..services import COMPUTE, GALLERY, HIDDEN, Services, fill, guarded
from ..sessions import Session
from ..teaching import annotation_files, draw_results, teach, zip_folder


__all__ = ["Parts", "build", "can_train", "push_detector", "show_job"]

logger = logging.getLogger(__name__)

SHOWN = 24


@dataclass(frozen=True)
class Parts:
    """Components that show the state of a session.

    Attributes:
        outputs: By the names of what fills them.
        checkpoints: Changes when a detector was taught.
        train: Starts a training; enabled where there is something to learn from.
        make: Makes the files; likewise.
        correct: Opens the faces that the detector is least sure of.
    """

    outputs: dict[str, Any]
    checkpoints: gr.State
    train: gr.Button
    make: gr.Button
    correct: gr.Button


def build(services: Services, key: gr.State) -> Parts:
    """Lay this part out and connect it."""
    gr.Markdown(
        "### 4. Train\nA few minutes on two CPU cores. The page may be closed meanwhile. What is learned until "
        "*Cancel* is kept."
    )
    with gr.Row(equal_height=True):
        effort = gr.Slider(0.1, 2, 1, step=0.1, label="Length (1 is usual)", min_width=260)
        train = gr.Button("Train", variant="primary", min_width=120, interactive=False)
        cancel = gr.Button("Cancel", min_width=120, interactive=False)
    bar = gr.HTML("", elem_id="teach-bar", visible=False)
    state = gr.Markdown("", elem_id="teach-training")
    curve = gr.LinePlot(
        pd.DataFrame({"step": [], "loss": []}), x="step", y="loss", label="Heatmap loss", height=220, visible=False
    )
    results = gr.Gallery(
        label="Faces not annotated, the doubtful ones first",
        elem_id="teach-results",
        visible=False,
        columns=4,
        **GALLERY,
    )
    correct = gr.Button("Correct the most doubtful ones, then train again", visible=False)
    timer = gr.Timer(1.0, active=False)
    taught = gr.State(0)
    gr.Markdown("### 5. Take it with you\nThe annotations at any time, and the detector once it is trained.")
    make = gr.Button("Make files: annotations (COCO, .pts) and checkpoint", interactive=False)
    files = gr.File(label="Download", file_count="multiple", interactive=False, visible=False)
    with gr.Accordion("Push the detector to the Hub", open=False):
        gr.Markdown("The token is used for this one push. It is neither stored nor logged.")
        with gr.Row():
            repository = gr.Textbox(label="Repository", placeholder="owner/name", min_width=200)
            token = gr.Textbox(label="Token with write permission", type="password", min_width=200)
            private = gr.Checkbox(True, label="Private", min_width=100)
        push = gr.Button("Push", interactive=False)
        pushed = gr.Markdown("", elem_id="teach-pushed")
    outputs = {"state": state, "curve": curve, "results": results, "timer": timer, "taught": taught, "bar": bar}
    outputs |= {"train": train, "cancel": cancel, "push": push, "correct": correct}

    def show(session: Session) -> dict[Any, Any]:
        return fill(outputs, show_job(services, session))

    @guarded
    def start(secret: str, strength: float) -> dict[Any, Any]:
        session = services.sessions.open(secret)
        with session.lock:
            if session.job is not None and session.job.active:
                raise DataError("A training is under way already: cancel it first.")
            if not session.project.annotated:
                raise DataError("Annotate at least one face first.")
            strength = min(max(float(strength), 0.1), 2.0)
            if session.learning_along is not None:
                session.learning_along.cancel()  # what it would propose from is about to be learned better
            work = partial(teach, session, services.shelf.start_name, strength)
            session.job = services.fits.add(FitJob(work, owner=f"training of {session.key}"))
        return show(session)

    @guarded
    def stop(secret: str) -> dict[Any, Any]:
        session = services.sessions.open(secret)
        if session.job is not None:
            session.job.cancel()
        return show(session)

    @guarded
    def make_files(secret: str) -> Any:
        session = services.sessions.open(secret)
        with session.lock:
            contents = annotation_files(session.project, session.photographs)
            if session.detector.is_dir():
                contents["checkpoint.zip"] = zip_folder(session.detector)
        paths = []
        for name, content in contents.items():
            path = services.uploads.new_file(name)
            path.write_bytes(content)
            paths.append(str(path))
        return gr.File(value=paths, visible=True)

    @guarded
    def send(secret: str, name: str, word: str, closed: bool) -> tuple[str, str]:
        return push_detector(services.sessions.open(secret), name, word, closed), ""

    shown = list(outputs.values())
    train.click(start, [key, effort], shown, **HIDDEN)
    cancel.click(stop, key, shown, **HIDDEN)
    timer.tick(
        guarded(lambda secret: show(services.sessions.open(secret))),
        key,
        shown,
        **HIDDEN,
        show_progress="hidden",
    )
    make.click(make_files, key, files, **COMPUTE, **HIDDEN)
    # The field of the token is emptied whatever happens.
    push.click(send, [key, repository, token, private], [pushed, token], **HIDDEN).failure(
        lambda: "", None, token, **HIDDEN
    )
    return Parts(outputs, taught, train, make, correct)


def can_train(session: Session) -> bool:
    """Whether there is something to learn from, and no training is under way."""
    return bool(session.project.annotated) and not (session.job is not None and session.job.active)


def show_job(services: Services, session: Session) -> dict[str, Any]:
    """Return what the page shows of a training by the names of `Parts.outputs`; what is not named stays as it is.

    `taught` is a number that changes with the detector.
    """
    job = session.job
    has_detector = session.has_detector
    active = job is not None and job.active
    shown: dict[str, Any] = {
        "train": gr.Button(interactive=can_train(session)),
        "cancel": gr.Button(interactive=active),
        "push": gr.Button(interactive=has_detector),
        "timer": gr.Timer(active=active),
        "bar": gr.HTML(visible=False),
    }
    if job is not None and active:
        text = describe_job(job, services.fits.position(job))
        return shown | {"state": text, "curve": _curve(job), "bar": gr.HTML(value=draw_bar(job), visible=True)}
    drawn: list[Any] = []
    correctable = False
    if has_detector and session.project.faces:
        with session.lock:
            found = draw_results(session, services.shelf.finder(session.detector), SHOWN)
        correctable = any(not session.project.faces[face.row].skipped for face in found)
        drawn = [(face.picture, f"score {face.score:.2f} · {face.name}") for face in found]
    text = "A detector was taught in an earlier visit." if has_detector else ""
    if job is not None:
        text = describe_job(job, 0)
    if has_detector:
        uncalibrated = score_note(services.shelf.finder(session.detector).model.config)
        text += f"\n\n{uncalibrated}" if uncalibrated else ""
        text += "" if drawn else "\n\nEvery face is annotated: add other photographs to see what it finds in them."
    return shown | {
        "state": text,
        "curve": gr.LinePlot(visible=False) if job is None else _curve(job),
        "results": gr.Gallery(value=drawn or None, visible=bool(drawn)),
        "taught": int(has_detector) if job is None else len(job.losses) + 1,
        "correct": gr.Button(visible=correctable),
    }


def _curve(job: FitJob) -> Any:
    losses = list(job.losses)
    table = pd.DataFrame({"step": np.arange(1, len(losses) + 1), "loss": losses})
    return gr.LinePlot(value=table, visible=bool(losses))


def draw_bar(job: FitJob) -> str:
    """Return HTML of how far the present phase of a training is, and how long it still takes."""
    progress, left = job.progress, job.seconds_left
    share = progress.step / max(progress.steps, 1) if progress else 0.0
    note = f"{share:.0%}" if left is None else f"{share:.0%}, about {describe_seconds(left)} left of this phase"
    return (
        f'<progress value="{share:.3f}" max="1" aria-label="Progress of the training" style="width: 100%"></progress>'
        f"<div>{note}</div>"
    )


def describe_seconds(seconds: float) -> str:
    """Return a time in words, rounded as an estimate deserves."""
    if seconds < 60:
        return f"{max(5, 5 * round(seconds / 5))} s"
    return f"{round(seconds / 60)} min"


def describe_job(job: FitJob, position: int) -> str:
    """Say in words where a training is."""
    if job.state == "failed":
        return f"The training failed: {job.error}"
    if job.state == "waiting":
        return f"Waiting: {position} training{'s' if position != 1 else ''} before yours."
    if job.active:
        progress = job.progress
        if progress is None:
            return "Getting ready."
        phase = "Learning" if progress.phase == "learning" else "Estimating the error on new faces"
        error = "" if progress.error is None else f", error on some faces {progress.error:.2f} %"
        return f"{phase}: step {progress.step} of {progress.steps}, loss {progress.loss:.2f}{error}."
    if job.result is None:
        return "Canceled before it began."
    head = "Canceled; what was learned so far is kept." if job.state == "stopped" else "Done."
    lines = [f"{head} {count_faces(len(job.result.training_errors))} in {job.result.seconds:.0f} s."]
    for what, errors in (
        ("on these faces", job.result.training_errors),
        ("on new faces (some held out, predicted from the others)", job.result.held_out_errors),
    ):
        known = errors[np.isfinite(errors)]
        if len(known):
            spread = f" ± {known.std(ddof=1) / len(known) ** 0.5:.2f}" if len(known) > 1 else ""
            lines.append(f"Error {what}: **{known.mean():.2f}{spread} %** of the side of the face box.")
    if any("±" in line for line in lines):
        lines.append("± is the standard error of the mean over faces.")
    return "\n\n".join(lines)


def push_detector(session: Session, repository: str, token: str, private: bool, endpoint: str | None = None) -> str:
    """Publish the detector of a session with its visitor's own token, which is kept nowhere.

    Args:
        session: Whose detector.
        repository: `owner/name`.
        token: The visitor's; without one nothing is sent, whatever token the server itself may have.
        private: Whether a new repository is private.
        endpoint: Another Hub than the usual one.

    Returns:
        What was done, in words.

    Raises:
        HubError: If something is missing, or the Hub refuses; the message holds no token.
    """
    token, repository = (token or "").strip(), (repository or "").strip()
    if not token or not repository:
        raise HubError("Give a repository as owner/name, and a token with write permission.")
    if not session.has_detector:
        raise HubError("Train a detector first.")
    from huggingface_hub import HfApi

    from ...hub.publishing import push

    try:
        published = push(session.detector, repository, private=private, api=HfApi(endpoint=endpoint, token=token))
    except FabRecError as error:
        raise HubError(str(error).replace(token, "…")) from None
    except Exception as error:  # whatever it is, its text is not to be trusted with the token
        logger.error("A push failed: %s", type(error).__name__)
        raise HubError("The push failed on the server: try again.") from None
    return f"Pushed to {repository}: {published[-1].files} files, commit {published[-1].commit[:8]}."
