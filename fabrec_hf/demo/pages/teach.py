"""The page that teaches a detector: photographs, points, clicks, training, results."""

from typing import Any

import gradio as gr

from ..annotation import Project, parse_names
from ..annotation_view import crop_of, draw_annotation
from ..fit_queue import FitJob
from ..services import COMPUTE, HIDDEN, Services, guarded
from ..sessions import Session
from ..teaching import Proposer, find_session_faces, rank_faces
from ..uploads import checked_list
from . import training


__all__ = ["build"]

NAMES = "left_eye, right_eye, nose_tip, left_mouth_corner, right_mouth_corner"
NUDGE = 1.5
PROPOSALS = "The amber circles are proposed: click to correct one, or accept the rest."


def build(services: Services, key: gr.State) -> training.Parts:
    """Lay the page out and connect it.

    Returns:
        What shows the state of a session, for when a page is opened again.
    """
    days = max(1, round(services.sessions.max_age / 86400))
    gr.Markdown(
        "**1. Photographs.** Drop a folder of photographs with faces; nothing has to be labelled. They stay on this "
        f"server, for you alone, and are removed when you start over or have not been here for {days} "
        f"day{'s' if days > 1 else ''}."
    )
    with gr.Row():
        folder = gr.File(label="A folder of photographs", file_count="directory", height=130, min_width=260)
        with gr.Column(min_width=220):
            single = gr.UploadButton("Or choose photographs", file_count="multiple", file_types=["image"])
            photographs = gr.Markdown("", elem_id="teach-photographs")
            clear = gr.Button("Start over, and remove everything")
    gr.Markdown("**2. Points.** Name them once. Names that differ in *left* and *right* mirror each other.")
    with gr.Row():
        names = gr.Textbox(NAMES, label="Names of the points", lines=2, min_width=260)
        count = gr.Slider(1, 50, 10, step=1, label="Faces to annotate", min_width=160)
    choose = gr.Button("Choose the faces to annotate", variant="primary")
    gr.Markdown("**3. Clicks.** Click each point where it belongs. Every click is saved at once.")
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300):
            image = gr.Image(label="Face", interactive=False, format="jpeg", elem_id="teach-face", buttons=[])
        with gr.Column(scale=2, min_width=260):
            status = gr.Markdown("Choose faces first.", elem_id="teach-status")
            point = gr.Radio([], label="Point", elem_id="teach-point")
            with gr.Row():
                buttons = {
                    name: gr.Button(label, min_width=130, variant="primary" if name == "next" else "secondary")
                    for name, label in (
                        ("accept", "Accept proposed"),
                        ("hide", "Point is invisible"),
                        ("undo", "Undo"),
                        ("skip", "Skip this face"),
                        ("previous", "Previous face"),
                        ("next", "Next face"),
                    )
                }
            with gr.Row():
                moves = {
                    label: gr.Button(label, min_width=60, size="sm")
                    for label in ("← left", "↑ up", "↓ down", "→ right")
                }
    view = [image, status, point, photographs, names]
    parts = training.build(services, key)

    def show(session: Session) -> tuple[Any, ...]:
        return show_session(services, session)

    def change(work: Any) -> Any:
        """Make an event of what changes a session: it gets the session, and the page shows it afterwards."""

        @guarded
        def run(secret: str, *values: Any) -> tuple[Any, ...]:
            session = services.sessions.open(secret)
            with session.lock:
                before = complete_faces(session.project)
                work(session, *values)
                if complete_faces(session.project) != before:
                    learn_along(services, session)
                return show(session)

        return run

    @guarded
    def add(secret: str, paths: list[str] | None, progress: gr.Progress = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
        files = checked_list(paths, services.limits.photographs)
        session = services.sessions.open(secret)
        with session.lock:
            kept, problems = session.add_photographs(files, services.uploads)
            finder = services.shelf.finder()
            faces = find_session_faces(
                session, kept, finder, lambda done: progress((done, len(kept)), desc="looking for faces")
            )
            session.project.add_faces(faces)
            for problem in problems[:5]:
                gr.Warning(problem)
            return show(session)

    def pick(session: Session, text: str, faces: float) -> None:
        session.project.set_names(parse_names(text, services.limits.points))
        session.project.choose(rank_faces(session, services.shelf, int(faces)))

    @guarded
    def click(secret: str, event: gr.SelectData) -> tuple[Any, ...]:
        session = services.sessions.open(secret)
        with session.lock:
            before = complete_faces(session.project)
            x, y = event.index
            session.project.put(*crop_of(session.project.face.box).to_photograph(float(x), float(y)))
            if complete_faces(session.project) != before:
                learn_along(services, session)
            return show(session)

    # Gradio drops events that come while one of the same kind is under way; no click may be lost.
    quick: dict[str, Any] = {**HIDDEN, "show_progress": "hidden", "trigger_mode": "multiple"}
    folder.upload(add, [key, folder], view, **COMPUTE, **HIDDEN)
    single.upload(add, [key, single], view, **COMPUTE, **HIDDEN)
    choose.click(change(pick), [key, names, count], view, **COMPUTE, **HIDDEN)
    image.select(click, key, view, **quick)
    point.input(change(lambda session, index: session.project.select(int(index))), [key, point], view, **quick)
    actions = {
        "accept": accept_proposal,
        "hide": lambda session: session.project.hide(),
        "undo": lambda session: session.project.undo(),
        "skip": lambda session: session.project.skip(),
        "previous": lambda session: session.project.go_to(session.project.place - 1),
        "next": lambda session: session.project.go_to(session.project.place + 1),
    }
    for name, button in buttons.items():
        button.click(change(actions[name]), key, view, **quick)
    for button, (dx, dy) in zip(moves.values(), ((-1, 0), (0, -1), (0, 1), (1, 0)), strict=True):
        button.click(change(_nudge(dx, dy)), key, view, **quick)
    clear.click(change(lambda session: session.clear()), key, view, **HIDDEN).then(
        guarded(lambda secret: training.show_job(services, services.sessions.open(secret))),
        key,
        parts.outputs,
        **HIDDEN,
    )
    return training.Parts([*view, *parts.outputs], parts.checkpoints)


def show_session(services: Services, session: Session) -> tuple[Any, ...]:
    """Return what the page shows of a session: face, status, points, photographs, names."""
    project = session.project
    files = len({face.file for face in project.faces})
    summary = f"{files} photographs, {len(project.faces)} faces." if files else ""
    names = gr.Textbox(value=", ".join(project.names) or NAMES, interactive=not any(f.touched for f in project.faces))
    if not project.order or not project.names:
        return None, "Choose faces first.", gr.Radio(choices=[], value=None), summary, names
    face, photograph = project.face, session.photograph(project.face)
    proposal = session.proposer.propose(face, photograph) if session.proposer else None
    picture = draw_annotation(photograph, face, project.current, proposal)
    labels = []
    for index, name in enumerate(project.names):
        mark = "✓" if face.points[index] is not None else "invisible" if face.hidden[index] else "…"
        labels.append((f"{index + 1} {name} {mark}", index))
    return (
        picture,
        _status(project, proposal is not None),
        gr.Radio(choices=labels, value=project.current),
        summary,
        names,
    )


def _status(project: Project, proposed: bool) -> str:
    face = project.face
    done = sum(project.faces[row].complete for row in project.order)
    head = f"**Face {project.place + 1} of {len(project.order)}** ({face.name}); {done} complete."
    if face.skipped:
        return f"{head}\n\nThis face is skipped."
    if face.complete:
        return f"{head}\n\nAll points are placed: correct any of them, or go to the next face."
    return (
        f"{head}\n\nClick **{project.current + 1} {project.names[project.current]}**. {PROPOSALS if proposed else ''}"
    )


def _nudge(dx: int, dy: int) -> Any:
    """Return what moves the current point a little; one that was not placed starts where it is proposed."""

    def move(session: Session) -> None:
        project = session.project
        face, step = project.face, NUDGE * crop_of(project.face.box).scale
        point = face.points[project.current] if face.points else None
        if point is None:
            x, y, width, height = face.box
            proposal = session.proposer.propose(face, session.photograph(face)) if session.proposer else None
            point = (x + width / 2, y + height / 2) if proposal is None else tuple(proposal[project.current])
        project.put(point[0] + dx * step, point[1] + dy * step, advance=False)

    return move


def accept_proposal(session: Session) -> None:
    """Take what is proposed for the points of this face that nothing was said of."""
    face = session.project.face
    proposal = session.proposer.propose(face, session.photograph(face)) if session.proposer else None
    if proposal is not None:
        session.project.accept(proposal)


def complete_faces(project: Project) -> int:
    """Count the faces of which everything is said."""
    return sum(face.complete for face in project.faces)


def learn_along(services: Services, session: Session) -> None:
    """Let what proposes positions learn from the face that was just completed, in the background."""
    if not complete_faces(session.project):
        return
    proposer = session.proposer
    if proposer is None or proposer.names != session.project.names:
        proposer = session.proposer = Proposer(session, services.shelf.autoencoder_name)
    if session.job is None or not session.job.active:
        services.fits.add(FitJob(proposer.learn, owner=f"proposals of {session.key}"))
