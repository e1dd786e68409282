"""The parts of the pre-training loop: feeds, shared batches, pictures, and runs that go wrong."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


datasets = pytest.importorskip("datasets")

ROOT = Path(__file__).parents[2]

import face_feed  # noqa: E402
from face_feed import (  # noqa: E402
    Schedule,
    choose_feed,
    load_training_faces,
    memory_feed,
    stream_feed,
    worker_feed,
)
from pictures import draw_sheet  # noqa: E402

from fabrec_hf import FabRecAutoencoder, FabRecAutoencoderConfig  # noqa: E402
from fabrec_hf.data import load_faces  # noqa: E402
from fabrec_hf.data.conversion import convert_faces  # noqa: E402
from fabrec_hf.data.decoding import CANVAS_RATIO, FaceDecoder, decode_faces, decode_pictures  # noqa: E402
from fabrec_hf.data.formats.csv_table import open_source  # noqa: E402
from fabrec_hf.errors import DataError  # noqa: E402
from support.scripts import run_script  # noqa: E402
from support.warm_processes import run_ranks  # noqa: E402


CPU = torch.device("cpu")
TINY = ["--preset", "small", "--widths", 8, 8, 8, 8, "--batch_size", 8, "--learning_rate", 1e-3, "--beta1", 0.9]
TINY += ["--held_out_fraction", 0.3, "--picture_every", 2, "--gradient_penalty", 1]


def pretrain(*arguments, processes=1):
    if processes == 1:
        return run_script("pretrain.py", *TINY, *arguments)
    environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    words = [*TINY, *arguments]
    return run_ranks(ROOT / "training" / "pretrain.py", *words, processes=processes, environment=environment)


def logged_losses(stderr):
    """The numbers of the lines `step N: {...}`, by step and name."""
    lines = re.findall(r"step (\d+): (\{.*\})", stderr)
    return {(int(step), name): value for step, text in lines for name, value in eval(text).items()}  # noqa: S307


def test_workers_yield_the_batches_that_memory_yields(drawn_faces):
    faces, decoder = load_faces(drawn_faces), FaceDecoder(40)
    schedule = Schedule(batch_size=5, seed=1, start=2, stop=6)
    held = list(memory_feed(faces, decoder, schedule, CPU))
    assert len(held) == 4 and held[0].pixels.shape == (5, 3, 40, 40) and held[0].pixels.dtype == torch.uint8
    for batch, expected in zip(worker_feed(faces, decoder, schedule, CPU, workers=2), held, strict=True):
        assert torch.equal(batch.pixels, expected.pixels) and batch.crop_fraction == expected.crop_fraction == 1
    pictures = decode_pictures(faces, 40, progress=False)
    assert torch.equal(held[0].pixels, pictures[schedule.rows(24, 2)])


def test_processes_take_turns_in_a_batch(drawn_faces):
    faces, decoder = load_faces(drawn_faces), FaceDecoder(16)
    (whole,) = memory_feed(faces, decoder, Schedule(6, seed=0, start=3, stop=4), CPU)
    for rank in range(2):
        (share,) = memory_feed(faces, decoder, Schedule(6, 0, 3, 4, rank, 2), CPU)
        assert torch.equal(share.pixels, whole.pixels[rank::2])


def test_a_stream_yields_every_face_once_a_pass_and_goes_on_where_it_stopped(drawn_faces):
    stream, decoder = load_faces(drawn_faces, streaming=True), FaceDecoder(16)
    batches = list(stream_feed(stream, decoder, Schedule(6, seed=0, start=0, stop=8), CPU))
    pictures = {picture.numpy().tobytes() for picture in decode_pictures(load_faces(drawn_faces), 16, progress=False)}
    passes = [[face.numpy().tobytes() for batch in batches[i : i + 4] for face in batch.pixels] for i in (0, 4)]
    assert set(passes[0]) == set(passes[1]) == pictures and len(pictures) == 24
    assert passes[0] != passes[1]
    resumed = list(stream_feed(stream, decoder, Schedule(6, seed=0, start=5, stop=8), CPU))
    assert all(torch.equal(batch.pixels, same.pixels) for batch, same in zip(resumed, batches[5:], strict=True))


def test_streamed_and_loaded_faces_hold_the_same_ones_out(drawn_faces):
    loaded, held, _ = load_training_faces([str(drawn_faces)], 64, 0.3, stream=False)
    streamed, found, _ = load_training_faces([str(drawn_faces)], 64, 0.3, stream=True)
    assert held["name"][:] == found["name"][:] and len(held) > 2
    assert [row["name"] for row in streamed] == loaded["name"][:]
    with pytest.raises(DataError, match="too few"):
        load_training_faces([str(drawn_faces)], 64, 1e-9, stream=True)


def test_faces_fit_into_memory_or_go_to_workers():
    assert choose_feed(1000, 160, CPU) == "memory"
    assert choose_feed(10**9, 160, CPU) == "workers"


def test_faces_of_a_converted_set_are_cut_out_by_their_boxes(tmp_path):
    """A white box in a black picture: with margins 0.2 and 0.12 it fills 100 / 132 of the crop's height and width."""
    pixels = np.zeros((300, 300, 3), dtype=np.uint8)
    pixels[100:200, 100:200] = 255
    for index in range(8):
        pixels[0, 0] = index
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    lines = [f"{index}.png,100,100,100,100" for index in range(8)]
    (tmp_path / "faces.csv").write_text("\n".join(["image,box_x,box_y,box_width,box_height", *lines]))
    convert_faces(open_source(tmp_path / "faces.csv"), tmp_path / "faces")
    faces, _, decoder = load_training_faces([str(tmp_path / "faces")], 132, 0.3, stream=False)
    assert decoder == FaceDecoder(round(132 * CANVAS_RATIO), (0.20, 0.12))
    canvas = torch.from_numpy(decoder(faces.cast_column("image", datasets.Image(decode=False))[0] | {"row": 0}))
    white = (canvas[..., 0] > 127).nonzero()
    assert (white.max(0).values - white.min(0).values + 1).tolist() == pytest.approx([100, 100], abs=1)
    # The crop's center lies 4 % of the box below the box's own: the margin above is larger by 0.08, half on each side.
    assert white.float().mean(0).tolist() == pytest.approx([93 - 0.5 + 4, 93 - 0.5], abs=1)


def test_two_processes_have_the_losses_of_one(drawn_faces, tmp_path):
    """The same global batch, shared by two gloo processes: coarse, full and adversarial steps."""
    # A low rate, or Adam makes large steps of the small differences that the order of a sum leaves.
    arguments = ["--data", drawn_faces, "--max_steps", 6, "--coarse_steps", 2, "--adversarial_start", 3]
    arguments += ["--learning_rate", 1e-4]
    one = pretrain(*arguments, "--output_dir", tmp_path / "one")
    two = pretrain(*arguments, "--output_dir", tmp_path / "two", processes=2)
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    expected, found = logged_losses(one.stderr), logged_losses(two.stderr)
    assert {(6, "adversarial"), (4, "structural"), (2, "latent"), (6, "held_out_l1")} <= expected.keys()
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=3e-3), key
    assert FabRecAutoencoder.from_pretrained(tmp_path / "two").config.image_size == 128
    assert (tmp_path / "two" / "checkpoint-6" / "progress.json").is_file()


def test_every_feed_trains_to_the_same_weights(drawn_faces, tmp_path, monkeypatch):
    """Memory and workers give the same batches; a stream's are other ones, which memory then hands out, too."""
    from safetensors.torch import load_file

    arguments = ["--data", drawn_faces, "--max_steps", 2, "--adversarial_weight", 0]
    for feed in ("memory", "workers"):
        done = pretrain(*arguments, "--feed", feed, "--workers", 1, "--output_dir", tmp_path / feed)
        assert done.returncode == 0, done.stderr
    weights = [load_file(tmp_path / feed / "model.safetensors") for feed in ("memory", "workers")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    streamed = []

    def record(*feed):
        for batch in stream_feed(*feed):
            streamed.append(replace(batch, pixels=batch.pixels.clone()))
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(face_feed, "stream_feed", record)
        done = pretrain(*arguments, "--feed", "stream", "--output_dir", tmp_path / "stream")
        assert done.returncode == 0, done.stderr
        patch.setattr(face_feed, "memory_feed", lambda *feed: iter(streamed))
        done = pretrain(*arguments, "--feed", "memory", "--output_dir", tmp_path / "again")
        assert done.returncode == 0, done.stderr
    faces, _, decoder = load_training_faces([str(drawn_faces)], 128, 0.3, stream=False)
    known = {face.numpy().tobytes() for face in decode_faces(faces, decoder, progress=False).pixels}
    seen = {face.numpy().tobytes() for batch in streamed for face in batch.pixels}
    assert [len(batch) for batch in streamed] == [8, 8] and len(seen) == 16 and seen <= known
    weights = [load_file(tmp_path / feed / "model.safetensors") for feed in ("stream", "again", "memory")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_the_result_is_the_average_of_the_weights_also_after_a_resume(drawn_faces, tmp_path):
    """Weights w1, w2, w3: the average starts as w1; then 2/11 of it stay, and 3/12, which is less than the decay."""
    from safetensors.torch import load_file

    arguments = ["--data", drawn_faces, "--output_dir", tmp_path, "--adversarial_weight", 0, "--ema_decay", 0.9]
    arguments += ["--checkpoint_every", 1, "--log_every", 1, "--resume_from_checkpoint", "latest"]
    raw = []
    for steps in (1, 2, 3):
        done = pretrain(*arguments, "--max_steps", steps)
        assert done.returncode == 0, done.stderr
        raw.append(load_file(tmp_path / f"checkpoint-{steps}" / "model.safetensors"))
    average = load_file(tmp_path / "model.safetensors")
    moved = 0.0
    for name, value in average.items():
        if value.is_floating_point():
            expected = 1 / 4 * (2 / 11 * raw[0][name] + 9 / 11 * raw[1][name]) + 3 / 4 * raw[2][name]
            torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-5)
            moved = max(moved, float((value - raw[2][name]).abs().max()))
    assert moved > 1e-4
    # Killed between the last checkpoint and the model, the same command writes the model.
    (tmp_path / "model.safetensors").unlink()
    done = pretrain(*arguments, "--max_steps", 3)
    assert done.returncode == 0, done.stderr
    again = load_file(tmp_path / "model.safetensors")
    assert again.keys() == average.keys() and all(torch.equal(again[name], average[name]) for name in average)
    assert list((tmp_path / "logs").rglob("events.out.tfevents.*")), "tensorboard is the tracker by default"


def test_the_average_settles_at_its_decay_and_can_start_anew():
    """After many steps half of it stays at decay 0.5: 0, then 1, is 1/2; anew, it is the next weight."""
    from weight_average import WeightAverage

    layer = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(layer, 0.5)
    layer.weight.data.zero_()
    for _ in range(30):
        average.update_parameters(layer)
    layer.weight.data.fill_(1.0)
    average.update_parameters(layer)
    assert average.module.weight.item() == 0.5
    average.restart()
    layer.weight.data.fill_(7.0)
    average.update_parameters(layer)
    assert average.module.weight.item() == 7.0


def test_the_average_forgets_the_coarse_steps(drawn_faces, tmp_path):
    """It starts anew where the last decoder stage begins to learn, so after one such step it is the weights."""
    from safetensors.torch import load_file

    arguments = ["--data", drawn_faces, "--output_dir", tmp_path, "--adversarial_weight", 0, "--ema_decay", 0.9]
    arguments += ["--image_size", 128, "--coarse_steps", 2, "--max_steps", 3, "--checkpoint_every", 1]
    done = pretrain(*arguments)
    assert done.returncode == 0, done.stderr
    weights, average = (load_file(folder / "model.safetensors") for folder in (tmp_path / "checkpoint-3", tmp_path))
    before = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    for name, value in average.items():
        assert torch.equal(value, weights[name]), name
    assert any(not torch.equal(before[name], value) for name, value in weights.items())


def test_unusable_settings_are_refused_in_a_line(drawn_faces, tmp_path):
    for flag, value, words in (("--ema_decay", 1.0, "ema_decay"), ("--report_to", "aim", "--report_to must be")):
        done = pretrain("--data", drawn_faces, "--output_dir", tmp_path / "run", flag, value)
        assert done.returncode == 2 and words in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_last_good_checkpoint(drawn_faces, tmp_path):
    arguments = ["--data", drawn_faces, "--output_dir", tmp_path, "--adversarial_weight", 0, "--checkpoint_every", 1]
    assert pretrain(*arguments, "--max_steps", 2).returncode == 0
    done = pretrain(
        *arguments, "--max_steps", 9, "--resume_from_checkpoint", "latest", "--reconstruction_weight", 1e38,
        "--learning_rate", 1e30,
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"the last good checkpoint is {tmp_path / 'checkpoint-'}" in done.stderr.splitlines()[-1]
    steps = sorted(int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoint-*"))
    for step in steps:  # what is kept is usable
        state = torch.load(tmp_path / f"checkpoint-{step}" / "optimizer.bin", weights_only=True)
        assert json.loads((tmp_path / f"checkpoint-{step}" / "progress.json").read_text())["step"] == step
        assert state["state"]


def test_the_sheet_shows_pictures_reconstructions_random_faces_and_walks(tmp_path):
    torch.manual_seed(0)
    model = FabRecAutoencoder(FabRecAutoencoderConfig(image_size=32, latent_size=8, widths=[8, 8, 8, 8])).eval()
    images, mean = torch.rand(4, 3, 32, 32) - 0.5, torch.full((1, 3, 1, 1), 0.5)
    draw_sheet(model, images, mean, tmp_path / "sheet.png")
    sheet = torch.from_numpy(np.asarray(Image.open(tmp_path / "sheet.png"))).permute(2, 0, 1) / 255
    assert sheet.shape == (3, 5 * 34 + 2, 4 * 34 + 2)  # 2 pixels between the pictures
    cells = sheet[:, 2:, 2:].unfold(1, 32, 34).unfold(2, 32, 34).permute(1, 2, 0, 3, 4)
    with torch.no_grad():
        latent = model.encode(images)
        walk = model.decode(torch.stack([latent[0], (2 * latent[0] + latent[3]) / 3, latent[3]])) + 0.5
        torch.testing.assert_close(cells[1], (model.decode(latent) + 0.5).clamp(0, 1), atol=0.01, rtol=0)
    torch.testing.assert_close(cells[0], images + 0.5, atol=0.01, rtol=0)
    torch.testing.assert_close(cells[3][[0, 1, 3]], walk.clamp(0, 1), atol=0.01, rtol=0)
    torch.testing.assert_close(cells[4][[0, 3]], cells[1][[1, 2]], atol=0.01, rtol=0)


NORM_SCRIPT = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from global_batch_norm import share_batch_norm
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
torch.manual_seed(0)
inputs, weights = torch.randn(6, 3, 4, 4) * 2 + 1, torch.randn(6, 3, 4, 4)
plain = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
torch.nn.init.uniform_(plain[0].weight), torch.nn.init.uniform_(plain[0].bias)
import copy
shared = share_batch_norm(copy.deepcopy(plain), torch.device("cpu"))
whole, part = inputs.clone().requires_grad_(), inputs[rank::2].clone().requires_grad_()
expected, found = plain(whole), shared(part)
(expected * weights).sum().backward(); (found * weights[rank::2]).sum().backward()
close = torch.testing.assert_close
close(found, expected[rank::2]); close(part.grad, whole.grad[rank::2], atol=1e-5, rtol=1e-5)
close(shared[0].running_mean, plain[0].running_mean); close(shared[0].running_var, plain[0].running_var)
assert shared.state_dict().keys() == plain.state_dict().keys()
close(shared.eval()(part), plain.eval()(whole)[rank::2])
"""


def test_shared_batch_norm_is_that_of_the_whole_batch(tmp_path):
    (tmp_path / "norm.py").write_text(NORM_SCRIPT)
    done = run_ranks(tmp_path / "norm.py", ROOT / "training")
    assert done.returncode == 0, done.stderr


def test_a_128_px_run_grows_to_256_px(drawn_faces, tmp_path):
    # With four channels, backward in channels_last crashes inside torch 2.15 at this size.
    arguments = ["--data", drawn_faces, "--adversarial_weight", 0, "--batch_size", 2, "--widths", 16, 16, 16, 16]
    assert pretrain(*arguments, "--max_steps", 1, "--output_dir", tmp_path / "small").returncode == 0
    arguments += ["--image_size", 256, "--initial_model", tmp_path / "small"]
    refused = pretrain(*arguments, "--output_dir", tmp_path / "refused")
    assert refused.returncode == 2 and "grow to 256 with --fade_steps" in refused.stderr.splitlines()[-1]
    arguments += ["--fade_steps", 2, "--max_steps", 3, "--checkpoint_every", 2, "--output_dir", tmp_path / "large"]
    done = pretrain(*arguments)
    assert done.returncode == 0, done.stderr
    model = FabRecAutoencoder.from_pretrained(tmp_path / "large")
    assert model.config.image_size == 256 and len(model.decoder.stages) == 5


def test_the_benchmark_times_ours_and_the_authors_choices():
    words = ["--widths", *["16"] * 4, "--batch_size", 2, "--steps", 1]
    done = run_script("benchmarks/benchmark_pretraining.py", *words)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["images_per_second"].keys() == {"ours", "ours, coarse", "authors"}
    rates = result["images_per_second"]
    # Rates are rounded to a tenth, which is much of them on a machine that is busy.
    lowest, highest = (rates["ours"] - 0.05) / (rates["authors"] + 0.05), rates["ours"] + 0.05
    assert lowest - 0.01 <= result["times_faster"]["ours"] <= highest / max(0.01, rates["authors"] - 0.05) + 0.01
    assert 0 <= result["data_share"]["ours"] < 1  # rounded to 0 where a step is slow


def test_the_authors_structural_loss_is_ours_but_for_the_border():
    """The same measure by another way: picture by picture, 31 x 31 weights, on a picture without a border effect."""
    from benchmark_pretraining import authors_structural_loss, authors_window

    from fabrec_hf.learning.autoencoder_losses import structural_similarity

    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 64) - 0.6
    images[:, 0, 0, 0] = -0.55  # a near-black red channel, which sets their constant
    reconstruction = images + 0.1 * torch.randn_like(images)
    theirs = 1 - authors_structural_loss(reconstruction, images, authors_window()) / 60
    inner = structural_similarity(reconstruction[..., 10:-10, 10:-10], images[..., 10:-10, 10:-10]).mean()
    assert float(theirs) == pytest.approx(float(inner), abs=2e-3)
