"""`transformers.Trainer` with the landmark model, our collator and our scores."""

import datasets
import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

from fabrec_hf import (
    FabRecForLandmarkDetection,
    FabRecImageProcessor,
    LandmarkCollator,
    LandmarkMetrics,
)
from fabrec_hf.errors import DataError, SchemeError
from support.faces import draw_face
from support.hub_client import run_python
from support.tiny_checkpoints import save_landmarks


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_landmarks(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def processor(checkpoint):
    return FabRecImageProcessor.from_pretrained(checkpoint)


@pytest.fixture
def faces(drawn_faces, tmp_path):
    file, cache = str(drawn_faces / "train.parquet"), str(tmp_path / "cache")
    return datasets.load_dataset("parquet", data_files=file, split="train", cache_dir=cache)


def make_trainer(checkpoint, processor, faces, folder, **settings):
    arguments = TrainingArguments(
        str(folder),
        **{"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "save_steps": 2} | settings,
        remove_unused_columns=False,
        label_names=["labels", "boxes"],
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=5,
    )
    return Trainer(
        FabRecForLandmarkDetection.from_pretrained(checkpoint),
        arguments,
        data_collator=LandmarkCollator(processor),
        train_dataset=faces.select(range(16)),
        eval_dataset=faces.select(range(16, 24)),
        processing_class=processor,
        compute_metrics=LandmarkMetrics("mtfl"),
    )


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_collator_cuts_crops_and_expresses_points_in_them(processor):
    image, points, box = draw_face(3)
    points[1] = np.nan
    batch = LandmarkCollator(processor)([{"image": image, "landmarks": points.tolist(), "box": box}])
    # By hand: 20 % above and 12 % below the box make the side of the square, which is centered on the box.
    x, y, width, height = box
    side = height * 1.32
    left, top = x + width / 2 - side / 2, y - 0.2 * height
    expected = (points + 0.5 - [left, top]) / side
    np.testing.assert_allclose(batch["labels"][0], expected, atol=1e-6)
    np.testing.assert_allclose(
        batch["boxes"][0], [(x - left) / side, (y - top) / side, width / side, height / side], atol=1e-6
    )
    assert batch["pixel_values"].shape == (1, 3, 32, 32) and batch["labels"].dtype == torch.float32


def test_the_collator_boxes_the_points_where_there_is_no_box(processor):
    image, points, _ = draw_face(3)
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    collator = LandmarkCollator(processor)
    alone = collator([{"image": image, "landmarks": points.tolist()}])
    boxed = collator([{"image": image, "landmarks": points, "box": [left, top, right - left, bottom - top]}])
    for name in ("pixel_values", "labels", "boxes"):
        torch.testing.assert_close(alone[name], boxed[name])
    with pytest.raises(DataError, match="neither a box nor points that enclose an area"):
        collator([{"image": image, "landmarks": [[1.0, 1.0], None], "box": None}])


def test_it_trains_what_is_not_frozen_and_saves_all_of_it(checkpoint, processor, faces, tmp_path):
    trainer = make_trainer(checkpoint, processor, faces, tmp_path)
    before = weights_of(trainer.model)
    trainer.train()
    after = weights_of(trainer.model)
    changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    # The autoencoder stays as it was, the statistics of its BatchNorm included.
    assert changed == {"transfer_layers", "heatmap_head"}
    trainer.save_model(tmp_path / "saved")
    saved = FabRecForLandmarkDetection.from_pretrained(tmp_path / "saved").state_dict()
    assert all(torch.equal(saved[name], value) for name, value in after.items()) and saved.keys() == after.keys()
    assert FabRecImageProcessor.from_pretrained(tmp_path / "saved").to_dict() == processor.to_dict()


def test_it_goes_on_where_it_stopped(checkpoint, processor, faces, tmp_path):
    whole = make_trainer(checkpoint, processor, faces, tmp_path)
    whole.train()
    again = make_trainer(checkpoint, processor, faces, tmp_path)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    expected = weights_of(whole.model)
    for name, value in weights_of(again.model).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)


def test_accumulated_batches_are_one_batch(checkpoint, processor, faces, tmp_path):
    plain = {"max_steps": 1, "optim": "sgd", "learning_rate": 10.0, "max_grad_norm": 0.0, "save_strategy": "no"}
    models = []
    for size, count in ((8, 1), (2, 4)):
        settings = plain | {"per_device_train_batch_size": size, "gradient_accumulation_steps": count}
        trainer = make_trainer(checkpoint, processor, faces.select([*range(8)] * 3), tmp_path, **settings)
        trainer.train_dataset = faces.select(range(8))
        trainer.train()
        models.append(weights_of(trainer.model))
    start = FabRecForLandmarkDetection.from_pretrained(checkpoint).state_dict()
    moved = models[0]["heatmap_head.weight"] - start["heatmap_head.weight"]
    assert moved.abs().max() > 1e-3
    torch.testing.assert_close(models[1]["heatmap_head.weight"], models[0]["heatmap_head.weight"], rtol=0, atol=1e-5)


def test_it_scores_as_a_hand_would(checkpoint, processor, faces, tmp_path):
    trainer = make_trainer(checkpoint, processor, faces, tmp_path, per_device_eval_batch_size=3)
    scores = trainer.evaluate()
    predictions = trainer.predict(trainer.eval_dataset).predictions
    assert [value.shape for value in predictions] == [(8, 5, 2), (8, 5)]  # no heatmaps: they would fill the memory
    errors = []
    for row in trainer.eval_dataset:
        inputs = processor(row["image"], boxes=[row["box"]])
        with torch.no_grad():
            outputs = trainer.model.eval()(inputs["pixel_values"])
        points = processor.post_process_keypoint_detection(outputs, inputs["crop_boxes"])[0][0]["keypoints"].numpy()
        truth = np.array(row["landmarks"])
        eyes = np.linalg.norm(truth[0] - truth[1])  # pupils, the first two of the five points
        errors.append(100 * np.linalg.norm(points - truth, axis=1).mean() / eyes)
    assert scores["eval_nme"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert scores["eval_failure_rate"] == pytest.approx(100 * np.mean(np.array(errors) > 10))
    assert 0 <= scores["eval_auc"] <= 1


def test_the_box_may_be_the_length(checkpoint, processor, faces, tmp_path):
    trainer = make_trainer(checkpoint, processor, faces, tmp_path)
    prediction = trainer.predict(trainer.eval_dataset)
    points, (labels, boxes) = prediction.predictions[0], prediction.label_ids
    by_hand = np.linalg.norm(points - labels, axis=2).mean(axis=1) / np.sqrt(boxes[:, 2] * boxes[:, 3])
    assert LandmarkMetrics("mtfl", "box")(prediction)["nme"] == pytest.approx(100 * by_hand.mean(), rel=1e-5)
    with pytest.raises(SchemeError):
        LandmarkMetrics("no such scheme")


def test_what_it_pushes_loads_by_name(hub, checkpoint, drawn_faces, tmp_path):
    script = """
import json, sys
import datasets
from transformers import AutoImageProcessor, AutoModelForKeypointDetection, Trainer, TrainingArguments
from fabrec_hf import FabRecForLandmarkDetection, FabRecImageProcessor, LandmarkCollator
faces = datasets.load_dataset("parquet", data_files=sys.argv[2], split="train")
processor = FabRecImageProcessor.from_pretrained(sys.argv[1])
arguments = TrainingArguments(
    sys.argv[3], max_steps=1, remove_unused_columns=False, report_to=[], use_cpu=True, disable_tqdm=True,
    push_to_hub=True, hub_model_id="faces/by-the-trainer", save_strategy="no",
)
trainer = Trainer(
    FabRecForLandmarkDetection.from_pretrained(sys.argv[1]), arguments,
    data_collator=LandmarkCollator(processor), train_dataset=faces, processing_class=processor,
)
trainer.train()
trainer.push_to_hub()
model, report = AutoModelForKeypointDetection.from_pretrained("faces/by-the-trainer", output_loading_info=True)
same = all((value == trainer.model.state_dict()[name]).all().item() for name, value in model.state_dict().items())
size = AutoImageProcessor.from_pretrained("faces/by-the-trainer").size["height"]
found = {"kind": type(model).__name__, "same": same, "size": size, "missing": len(report["missing_keys"])}
print("FOUND", json.dumps(found))
"""
    words = [str(checkpoint), str(drawn_faces / "train.parquet"), str(tmp_path / "run")]
    found = run_python(script, *words, environment=hub.environment(tmp_path))
    assert found == {"kind": "FabRecForLandmarkDetection", "same": True, "size": 32, "missing": 0}
