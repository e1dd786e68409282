"""`make gpu-check` on a machine without a GPU: the same checks with tiny networks, and what they would catch."""

import json

import pytest
import torch


pytest.importorskip("datasets")

import gpu_check  # noqa: E402
from gpu_check import TINY, Line, check_networks, falling, main, parse  # noqa: E402


pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="it is for machines without a GPU")
CPU = torch.device("cpu")


def test_every_check_passes_on_a_cpu(capsys):
    code = main(parse(["--json"]))
    report = json.loads(capsys.readouterr().out)
    checks = {line["what"]: line["passed"] for line in report["lines"] if line["passed"] is not None}
    assert code == report["failed"] == 0 and all(checks.values()), report["lines"]
    names = ("autoencoder", "image discriminator", "latent discriminator", "detector")
    ways = ("eager", "channels_last", "compiled", "bfloat16")
    assert {f"{name}, {way}, off the CPU by" for name in names for way in ways} <= checks.keys()
    assert {name.partition(" ")[0] for name in checks} >= {"pretrain.py,", "train_landmarks.py,"}
    measured = {line["what"]: line["value"] for line in report["lines"] if line["passed"] is None}
    assert float(measured["pre-training at 128 px, compiled"].split()[0]) > 0
    assert measured["inference of 3fabrec-300w, batch 1"].endswith("faces/s")
    assert "75,000 faces in" in next(value for name, value in measured.items() if name.startswith("decoding"))


def test_a_network_that_computes_something_else_fails(monkeypatch):
    """The second time it is used, its result is off by a hundredth."""
    calls = []

    class Drifting(torch.nn.Linear):
        def forward(self, inputs):
            calls.append(1)
            return super().forward(inputs) * (1.0 if len(calls) == 1 else 1.01)

    torch.manual_seed(0)
    network = Drifting(3, 2)
    monkeypatch.setattr(gpu_check, "networks", lambda sizes: [("it", network, torch.randn(4, 3), lambda out: out)])
    eager = next(check_networks(TINY, CPU))
    assert eager.passed is False and eager.what == "it, eager, off the CPU by"
    assert eager.value.startswith("output 1.0e-02 (up to 1e-03), gradients 1.0e-02")


def test_losses_have_to_fall_and_to_be_finite():
    assert falling([4.0] * 5 + [1.0] * 5) == ("4 to 1", True)
    assert falling([1.0] * 5 + [4.0] * 5)[1] is False
    assert falling([4.0] * 9 + [float("nan")])[1] is False


def test_a_failed_check_is_the_exit_code_and_an_error_is_one(monkeypatch, capsys):
    def broken(sizes, device):
        yield Line("first", "fine", True)
        raise RuntimeError("no kernel\nfor this device")

    for name in ("check_steps", "measure_pretraining", "check_detector"):
        monkeypatch.setattr(gpu_check, name, lambda *arguments: iter([Line("measured", "5 images/s")]))
    monkeypatch.setattr(gpu_check, "measure_decoding", lambda sizes: iter([]))
    monkeypatch.setattr(gpu_check, "check_networks", broken)
    assert main(parse([])) == 1
    said = capsys.readouterr().out
    assert "ok    first" in said and "      measured" in said
    assert "FAIL  networks" in said and "RuntimeError: no kernel for this device" in said
    assert "1 of 2 checks failed" in said


@pytest.mark.parametrize("end", ["mistake", "interrupt"])
def test_the_rounding_of_convolutions_is_given_back_however_it_ends(monkeypatch, end):
    seen = []

    def part(sizes, device):
        seen.append(torch.backends.cudnn.allow_tf32)
        yield Line("first", "fine", True)
        raise KeyError("nobody expects it")

    monkeypatch.setattr(gpu_check, "check_networks", part)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    lines = gpu_check.run(TINY)
    assert next(lines).what == "first"
    if end == "mistake":
        with pytest.raises(KeyError):
            next(lines)
    else:
        lines.close()
    assert seen == [False] and torch.backends.cudnn.allow_tf32 is True
