"""What other libraries make of our results and checkpoints, and we of theirs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fabrec_hf.checkpoints.loading import load_landmark_model
from fabrec_hf.cli import main
from support.tiny_checkpoints import save_autoencoder, save_landmarks


ROOT = Path(__file__).parents[2]


def test_results_feed_supervision(tmp_path):
    supervision = pytest.importorskip("supervision")
    model, processor = load_landmark_model(save_landmarks(tmp_path))
    picture = Image.radial_gradient("L").convert("RGB")
    boxes = [[40.0, 50.0, 120.0, 130.0], [10.0, 20.0, 90.0, 80.0]]
    inputs = processor([picture, picture], boxes=[boxes, []])
    with torch.no_grad():
        outputs = model(inputs["pixel_values"])
    geometry = {name: inputs[name] for name in ("crop_boxes", "face_boxes", "image_indices")}
    faces, none = processor.post_process_keypoint_detection(outputs, **geometry, num_images=2)
    points = supervision.KeyPoints.from_transformers(faces)
    assert points.xy.shape == (2, 5, 2)
    crops = inputs["crop_boxes"].numpy()
    expected = crops[:, None, :2] + outputs.landmarks.numpy() * crops[:, None, 2:] - 0.5
    np.testing.assert_allclose(points.xy, expected, atol=1e-3)
    np.testing.assert_allclose(points.keypoint_confidence, outputs.scores.numpy(), atol=1e-6)
    # The line of the README, for what the pipeline returns.
    listed = [{"keypoints": face["keypoints"].tolist()} for face in faces]
    own = supervision.KeyPoints(xy=np.array([face["keypoints"] for face in listed]))
    np.testing.assert_allclose(own.xy, expected, atol=1e-3)
    assert len(supervision.KeyPoints.from_transformers(none)) == 0
    drawn = supervision.VertexAnnotator(radius=3).annotate(np.zeros((256, 256, 3), np.uint8), points)
    assert drawn.any()


def test_coco_keypoints_go_in_and_come_out_again(tmp_path):
    """The same numbers, apart from the half pixel by which COCO counts from corners, which goes both ways."""
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (64, 48), "gray").save(tmp_path / "pictures" / "a.png")
    keypoints = [10.5, 20.25, 2, 30.5, 21.0, 1, 0, 0, 0]
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": 64, "height": 48}],
        "categories": [
            {"id": 1, "name": "face", "keypoints": ["left_eye", "right_eye", "nose"], "skeleton": [[1, 2]]}
        ],
        "annotations": [
            {
                "id": 3,
                "image_id": 7,
                "category_id": 1,
                "keypoints": keypoints,
                "num_keypoints": 2,
                "bbox": [5, 6, 40, 36],
            }
        ],
    }
    source = tmp_path / "annotations.json"
    source.write_text(json.dumps(content))
    words = ["convert", "coco", str(source), str(tmp_path / "out"), "--images", str(tmp_path / "pictures")]
    assert main([*words, "--to", "coco"]) == 0
    (written,) = [path for path in (tmp_path / "out").rglob("*.json") if path.name != "face_set.json"]
    back = json.loads(written.read_text())
    (annotation,) = back["annotations"]
    assert annotation["keypoints"] == pytest.approx(keypoints) and annotation["bbox"] == [5, 6, 40, 36]
    assert annotation["num_keypoints"] == 2
    assert back["categories"][0]["keypoints"] == content["categories"][0]["keypoints"]
    assert back["categories"][0]["skeleton"] == [[1, 2]]


@pytest.mark.skipif(not (ROOT / "hubconf.py").is_file(), reason="only in a checkout")
def test_torch_hub_loads_from_a_clone(tmp_path):
    folder = save_landmarks(tmp_path / "landmarks")
    model, processor = torch.hub.load(str(ROOT), "face_landmarks", str(folder), source="local")
    assert model.config.num_landmarks == 5 and processor.size.height == 32
    autoencoder = torch.hub.load(str(ROOT), "face_autoencoder", str(save_autoencoder(tmp_path / "a")), source="local")
    assert autoencoder.encode(torch.zeros(1, 3, 32, 32)).shape == (1, 8)
