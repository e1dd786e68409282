"""The page that teaches a detector: photographs, points, clicks, training, results."""

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from ...data.picture_files import PICTURE_SUFFIXES
from ...errors import DataError
from ...inference.face_records import count_faces
from ..annotation import Project, parse_names
from ..annotation_view import SIDE, crop_of
from ..face_board import SCRIPT, apply_action, board_value
from ..fit_queue import FitJob
from ..latent import LatentExplorer
from ..samples import DRAWN, draw_samples
from ..services import HIDDEN, LONG, Services, fill, guarded
from ..sessions import Session
from ..teaching import Proposer, draw_results, find_session_faces, rank_faces
from ..uploads import checked_list
from . import training


__all__ = ["build"]

NAMES = "left_eye, right_eye, nose_tip, left_mouth_corner, right_mouth_corner"
NUDGE = SIDE / 480
PROBLEMS = 5
# Faces of a round of corrections.
DOUBTFUL = 3
SCROLL_TO_FACE = "(...values) => { document.querySelector('#teach-status').scrollIntoView(); return values }"
NOTHING_LEFT = ", and no face is left: train the detector below."
NOT_CHOSEN = "Add photographs, name the points and choose the faces first."
PROPOSALS = "The amber circles are proposed: drag those that are wrong, and accept the rest."
BUTTON_WIDTH = 150
POINT_BUTTONS = {"accept": "Accept proposed", "hide": "Point is invisible", "undo": "Undo"}
MOVES = {
    "left": ("← left", (-1, 0)),
    "up": ("↑ up", (0, -1)),
    "down": ("↓ down", (0, 1)),
    "right": ("→ right", (1, 0)),
}
FACE_BUTTONS = {"skip": "Skip this face", "previous": "Previous face", "next": "Next face"}


@dataclass(frozen=True)
class _Photographs:
    folder: gr.File
    single: gr.UploadButton
    samples: gr.Button
    summary: gr.Markdown


@dataclass(frozen=True)
class _Points:
    names: gr.Textbox
    count: gr.Slider
    choose: gr.Button


@dataclass(frozen=True)
class _Clicks:
    status: gr.Markdown
    row: gr.Row
    board: gr.HTML
    point: gr.Radio
    buttons: dict[str, gr.Button]
    moves: dict[str, gr.Button]


def _lay_out_photographs(services: Services) -> _Photographs:
    days = max(1, round(services.sessions.max_age / 86400))
    gr.Markdown(
        "### 1. Photographs\nDrop a folder of photographs with faces; nothing has to be labeled. They stay on this "
        f"server, for you alone, and are removed when you start over or have not been here for {days} "
        f"day{'s' if days > 1 else ''}."
    )
    with gr.Row():
        folder = gr.File(label="A folder of photographs", file_count="directory", height=180, min_width=260)
        with gr.Column(min_width=220):
            single = gr.UploadButton(
                "Or choose photographs", file_count="multiple", file_types=["image", *PICTURE_SUFFIXES]
            )
            samples = gr.Button(f"Or try {len(services.examples) + DRAWN} sample faces")
            summary = gr.Markdown("", elem_id="teach-photographs")
    return _Photographs(folder, single, samples, summary)


def _lay_out_points(faces: int) -> _Points:
    gr.Markdown(
        "### 2. Points\nName the points of your own scheme once, with commas between them. Names that differ in "
        "*left* and *right* mirror each other. The faces that stand best for all others are chosen for you."
    )
    with gr.Row():
        names = gr.Textbox(NAMES, label="Names of the points", lines=2, min_width=260)
        count = gr.Slider(1, 50, faces, step=1, label="Faces to annotate", min_width=160)
    choose = gr.Button("Choose the faces to annotate", variant="primary", interactive=False)
    return _Points(names, count, choose)


def _lay_out_clicks() -> _Clicks:
    gr.Markdown("### 3. Clicks\nClick each point where it belongs. Every click is saved at once.")
    status = gr.Markdown(NOT_CHOSEN, elem_id="teach-status")
    with gr.Row(equal_height=False, visible=False) as row:
        with gr.Column(scale=3, min_width=300):
            board = gr.HTML(
                html_template='<div class="face-board"></div>',
                js_on_load=SCRIPT.read_text(encoding="utf-8"),
                elem_id="teach-face",
                label="Face",
            )
        with gr.Column(scale=2, min_width=260):
            point = gr.Radio([], label="Point to place next", elem_id="teach-point")
            with gr.Row():
                buttons = {name: gr.Button(label, min_width=BUTTON_WIDTH) for name, label in POINT_BUTTONS.items()}
            gr.Markdown("Move the point a little:")
            with gr.Row():
                moves = {name: gr.Button(label, min_width=60, size="sm") for name, (label, _) in MOVES.items()}
            with gr.Row():
                buttons |= {
                    name: gr.Button(
                        label, min_width=BUTTON_WIDTH, variant="primary" if name == "next" else "secondary"
                    )
                    for name, label in FACE_BUTTONS.items()
                }
    return _Clicks(status, row, board, point, buttons, moves)


def build(services: Services, key: gr.State) -> training.Parts:
    """Lay the page out and connect it.

    Returns:
        What shows the state of a session, for when a page is opened again.
    """
    # Whoever names a folder has chosen its faces.
    chosen = len(services.sessions.keep(services.prepared).project.faces) if services.prepared else 10
    photos, points = _lay_out_photographs(services), _lay_out_points(max(1, min(chosen, 50)))
    clicks = _lay_out_clicks()
    parts = training.build(services, key)
    places = {"row": clicks.row, "board": clicks.board, "status": clicks.status, "point": clicks.point}
    places |= {"summary": photos.summary, "names": points.names, "choose": points.choose}
    places |= {**clicks.buttons, **clicks.moves, "train": parts.train, "make": parts.make}
    view = list(places.values())
    with gr.Accordion("Start over", open=False):
        gr.Markdown("Removes photographs, annotations and detectors of this session from the server, for good.")
        clear = gr.Button("Remove everything", variant="stop")

    def show(session: Session) -> dict[Any, Any]:
        return fill(places, show_session(services, session))

    def change(work: Any) -> Any:
        """Make an event of what changes a session: it gets the session, and the page shows it afterward."""

        @guarded
        def run(secret: str, *values: Any) -> dict[Any, Any]:
            session = services.sessions.open(secret)
            with session.lock:
                before = complete_faces(session.project)
                work(session, *values)
                if complete_faces(session.project) != before:
                    learn_along(services, session)
                return show(session)

        return run

    @guarded
    def add(secret: str, paths: list[str] | None, progress: gr.Progress = gr.Progress()) -> dict[Any, Any]:  # noqa: B008
        files = checked_list(paths, services.limits.photographs)
        session = services.sessions.open(secret)
        with session.lock:
            project = session.project
            kept, problems = session.add_photographs(files, services.uploads)
        # This takes long, and its person may go on clicking.
        faces = find_session_faces(
            session, kept, services.shelf.finder(), lambda done: progress((done, len(kept)), desc="looking for faces")
        )
        warn(problems)
        with session.lock:
            if session.project is project:  # else everything was removed meanwhile
                project.add_faces(faces)
            return show(session)

    @guarded
    def sample(secret: str) -> dict[Any, Any]:
        session = services.sessions.open(secret)
        with session.lock:
            explorer = LatentExplorer(services.shelf.finder(), services.shelf)
            finder = services.shelf.finder()
            kept, _ = session.add_photographs([str(path) for path in services.examples], services.uploads)
            session.project.add_faces(find_session_faces(session, kept, finder))
            session.project.add_faces(draw_samples(session, explorer, services.uploads))
            return show(session)

    @guarded
    def pick(secret: str, text: str, faces: float) -> dict[Any, Any]:
        session = services.sessions.open(secret)
        with session.lock:
            project = session.project
            project.set_names(parse_names(text, services.limits.points))
        rows = rank_faces(session, services.shelf, int(faces))
        with session.lock:
            if session.project is project:
                project.choose(rows)
            return show(session)

    act = change(
        lambda session, event: apply_action(session, getattr(event, "_data", None), accept_proposal),
    )

    @guarded
    def on_board(secret: str, event: gr.EventData) -> dict[Any, Any]:
        return act(secret, event)

    @guarded
    def correct(secret: str) -> dict[Any, Any]:
        session = services.sessions.open(secret)
        with session.lock:
            correct_doubtful(services, session)
            return show(session)

    # Gradio drops events that come while one of the same kind is under way; no click may be lost.
    quick: dict[str, Any] = {**HIDDEN, "show_progress": "hidden", "trigger_mode": "multiple"}
    for upload in (photos.folder, photos.single):
        upload.upload(add, [key, upload], view, **LONG, **HIDDEN)
    points.choose.click(pick, [key, points.names, points.count], view, **LONG, **HIDDEN)
    photos.samples.click(sample, key, view, **LONG, **HIDDEN)
    clicks.board.act(on_board, key, view, **quick)
    parts.correct.click(correct, key, view, **HIDDEN, js=SCROLL_TO_FACE)
    select = change(lambda session, index: session.project.select(int(index)))
    clicks.point.input(select, [key, clicks.point], view, **quick)
    actions = {
        "accept": accept_proposal,
        "hide": lambda session: session.project.hide(),
        "undo": lambda session: session.project.undo(),
        "skip": lambda session: session.project.skip(),
        "previous": lambda session: session.project.go_to(session.project.place - 1),
        "next": lambda session: session.project.go_to(session.project.place + 1),
    }
    for name, button in clicks.buttons.items():
        button.click(change(actions[name]), key, view, **quick)
    for name, button in clicks.moves.items():
        button.click(change(_nudge(*MOVES[name][1])), key, view, **quick)
    clear.click(change(lambda session: session.clear()), key, view, **HIDDEN).then(
        guarded(lambda secret: fill(parts.outputs, training.show_job(services, services.sessions.open(secret)))),
        key,
        list(parts.outputs.values()),
        **HIDDEN,
    )
    return replace(parts, outputs=places | parts.outputs)


def warn(problems: list[str]) -> None:
    """Show what is wrong with some of the photographs; the others are used."""
    for problem in problems[:PROBLEMS]:
        gr.Warning(problem)
    if len(problems) > PROBLEMS:
        gr.Warning(f"{len(problems) - PROBLEMS} more files could not be used.")


def show_session(services: Services, session: Session) -> dict[str, Any]:
    """Return what the page shows of a session by the names of its parts; what is not named stays as it is."""
    project = session.project
    files = len({face.file for face in project.faces})
    summary = f"{files} photograph{'s' if files > 1 else ''}, {count_faces(len(project.faces))}." if files else ""
    names = gr.Textbox(value=", ".join(project.names) or NAMES, interactive=not any(f.touched for f in project.faces))
    if not project.order or not project.names:
        nothing = {"row": gr.Row(visible=False), "status": NOT_CHOSEN, "point": gr.Radio(choices=[], value=None)}
        return nothing | {"summary": summary, "names": names} | _button_states(session, False)
    face, proposal = project.face, session.proposal()
    labels = []
    for index, name in enumerate(project.names):
        mark = "✓" if face.points[index] is not None else "hidden" if face.hidden[index] else "…"
        labels.append((f"{index + 1} {name} {mark}", index))
    shown = {
        "row": gr.Row(visible=True),
        "board": board_value(session, services.uploads, proposal),
        "status": _status(project, proposal is not None),
        "point": gr.Radio(choices=labels, value=project.current),
        "summary": summary,
        "names": names,
    }
    return shown | _button_states(session, proposal is not None)


def _button_states(session: Session, proposed: bool) -> dict[str, Any]:
    """Enable the buttons that have something to act on."""
    project = session.project
    chosen = bool(project.order and project.names)
    open_points = chosen and any(
        point is None and not hidden for point, hidden in zip(project.face.points, project.face.hidden, strict=True)
    )
    several = chosen and len(project.order) > 1
    states = dict.fromkeys(MOVES, chosen) | {
        "choose": bool(project.faces),
        "accept": proposed and open_points,
        "hide": chosen,
        "undo": project.can_undo,
        "skip": chosen and not project.face.skipped,
        "previous": several,
        "next": several,
        "train": training.can_train(session),
        "make": bool(project.annotated),
    }
    return {name: gr.Button(interactive=bool(value)) for name, value in states.items()}


def _status(project: Project, proposed: bool) -> str:
    face = project.face
    done = sum(project.faces[row].complete for row in project.order)
    left = any(not (project.faces[row].complete or project.faces[row].skipped) for row in project.order)
    head = f"**Face {project.place + 1} of {len(project.order)}** ({face.name}); {done} complete."
    if face.skipped:
        return f"{head}\n\nThis face is skipped{NOTHING_LEFT if not left else '.'}"
    if face.complete and not left:
        return f"{head}\n\nAll points are placed{NOTHING_LEFT}"
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
            proposal = session.proposal()
            point = (x + width / 2, y + height / 2) if proposal is None else tuple(proposal[project.current])
        project.put(point[0] + dx * step, point[1] + dy * step, advance=False)

    return move


def accept_proposal(session: Session) -> None:
    """Take what is proposed for the points of this face that nothing was said of."""
    proposal = session.proposal()
    if proposal is not None:
        session.project.accept(proposal)


def correct_doubtful(services: Services, session: Session) -> None:
    """Open the faces that the detector is least sure of, with what it finds there proposed.

    Raises:
        DataError: If no detector was taught, or every face is annotated.
    """
    if not session.has_detector:
        raise DataError("Train a detector first.")
    finder = services.shelf.finder(session.detector)
    project = session.project
    results = draw_results(session, finder, training.SHOWN)
    doubtful = [face for face in results if not project.faces[face.row].skipped][:DOUBTFUL]
    if not doubtful:
        raise DataError("Every face is annotated or skipped: add other photographs.")
    proposer = Proposer(session, services.shelf.start_name)
    proposer.adopt(finder.model, len(project.annotated))
    session.proposer = proposer
    project.choose([*(face.row for face in doubtful), *project.order])
    project.go_to(project.order.index(doubtful[0].row))


def complete_faces(project: Project) -> int:
    """Count the faces of which everything is said."""
    return sum(face.complete for face in project.faces)


def learn_along(services: Services, session: Session) -> None:
    """Let what proposes positions learn from the face that was just completed, in the background."""
    if not complete_faces(session.project):
        return
    proposer = session.proposer
    if proposer is not None and proposer.adopted:
        return  # a detector that was trained in full proposes better than one that learns along
    if proposer is None or proposer.names != session.project.names:
        proposer = session.proposer = Proposer(session, services.shelf.start_name)
    if session.job is None or not session.job.active:
        session.learning_along = services.fits.add(FitJob(proposer.learn, owner=f"proposals of {session.key}"))
