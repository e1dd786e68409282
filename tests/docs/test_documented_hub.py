"""What docs/hub.md publishes by its commands, its Python loads: both run as they stand, against the tests' own Hub."""

import json
import shutil

import numpy as np
import pytest

from support.documents import ROOT, code_blocks, commands
from support.tiny_checkpoints import evaluation, save_landmarks, write_results
from support.warm_processes import run_code


pytest.importorskip("datasets")
pytest.importorskip("evaluate")

PAGE = ROOT / "docs/hub.md"
RUN = "import json, sys; from fabrec_hf.cli import main; sys.exit(max(map(main, json.loads(sys.argv[1]))))"
SAY = """
import json
FACE = [[30.0, 40.0], [70.0, 40.0], [50.0, 60.0], [35.0, 80.0], [65.0, 80.0]]
print("FOUND" + json.dumps({
    "points": model.config.num_landmarks,
    "task": detect.task,
    "seven": seven_points.config.num_landmarks,
    "rows": [row["landmarks"] for row in rows["train"]],
    "nme": metric.compute(
        predictions=[[[x + 4.0, y] for x, y in FACE]], references=[FACE], scheme="mtfl", normalizer="inter_pupil"
    )["nme"],
}))
"""
LICENSE = {"id": "other", "name": "research-only", "terms": "For research only."}


@pytest.fixture
def home(tmp_path):
    """A folder with what the page names: a finished run, few-shot runs, two converted sets; and a new cache."""
    write_results(save_landmarks(tmp_path / "runs/300w"), license=LICENSE, evaluations=[evaluation(4.25)])
    for shots in (1, 10):
        folder = save_landmarks(tmp_path / f"runs/300w-few/shots-{shots}", seed=shots)
        write_results(folder, license=LICENSE, evaluations=[evaluation(9.0 - shots / 10, shots)])
    lines = ["image,left_x,left_y,right_x,right_y", "0.png,10,20,30,20", "1.png,11,21,31,21"]
    (tmp_path / "faces.csv").write_text("\n".join(lines) + "\n")
    for index in range(2):
        shutil.copy(ROOT / "examples/astronaut.jpg", tmp_path / f"{index}.png")
    return tmp_path


def run_commands(all_words: list[list[str]], hub, home) -> None:
    """Run several commands of the package in one process, which knows the tests' Hub alone."""
    done = run_code(RUN, json.dumps(all_words), environment=hub.environment(home), folder=home)
    assert done.returncode == 0, done.stderr[-3000:]


def test_what_the_commands_publish_the_python_loads(hub, home):
    prepare = [["convert", "csv", "faces.csv", name, "--boxes", "points"] for name in ("faces-folder", "wflw")]
    pushes = [words[1:] for words in commands(PAGE) if words[:2] == ["fabrec", "push"]]
    assert len(pushes) == 7
    run_commands([*prepare, *pushes, ["push", "3fabrec-autoencoder", "faces/3fabrec-autoencoder"]], hub, home)
    branches = {branch.name for branch in hub.api().list_repo_refs("faces/3fabrec-300w").branches}
    assert branches == {"main", "shots-1", "shots-10"}
    annotations = hub.api().list_repo_files("faces/wflw-annotations", repo_type="dataset")
    assert [name for name in annotations if name.endswith(".parquet")]
    sent = {*hub.api().list_repo_files("alice/landmarks", repo_type="space")} - {".gitattributes"}
    written = {path.relative_to(home / "my-space").as_posix() for path in (home / "my-space").rglob("*.*")}
    assert {"app.py", "requirements.txt", "fabrec_hf/__init__.py"} <= sent
    assert written >= {name for name in sent if "." in name}

    (snippet,) = code_blocks(PAGE, "python")
    done = run_code(snippet + SAY, environment=hub.environment(home / "fresh", token=None), folder=home)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.rpartition("FOUND")[2])
    assert found["points"] == 5 and found["seven"] == 7 and found["task"] == "face-landmark-detection"
    np.testing.assert_allclose(found["rows"], [[[10, 20], [30, 20]], [[11, 21], [31, 21]]])
    assert found["nme"] == pytest.approx(10.0)  # every point four pixels off, the eyes forty apart
