"""Landmark detectors for other runtimes: ONNX, OpenVINO and `torch.export`, in 32 bits or, for the first two, in INT8.

An exported graph takes `pixel_values` (N, 3, S, S), as the image processor makes them, for any N, and returns
`landmarks` (N, L, 2) as fractions of the crop and `scores` (N, L): the decoding is part of it. `fabrec export` is
`cli/export.py`; `runtimes.py` runs the result.

The graph is built in two halves, from the fused model: pixels to heatmaps, which INT8 makes faster, and heatmaps to
points, which has to stay in 32 bits.
"""

import importlib
import io
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from ..checkpoints.weight_files import graph_format
from ..common.choices import FORMATS
from ..common.output_folder import check_output_folder, write_files
from ..errors import CheckpointError, FabRecError
from ..model.fused_modeling_fabrec import FabRecFusedForLandmarkDetection
from ..model.image_processing_fabrec import FabRecImageProcessor
from ..model.landmark_decoding import Drawing
from ..model.modeling_fabrec import FabRecForLandmarkDetection
from .quick_onnx import rewrite_for_onnx_runtime


__all__ = ["FORMATS", "check_export_folder", "export_model", "need_package"]

# How each runtime blurs heatmaps fastest, see `decode_heatmaps`; OpenVINO reads ONNX.
BLURS = {"onnx": "convolutions", "openvino": "pooling", "torch": "products"}
# The newest operators here are older than what every current runtime, also in a browser, knows.
OPSET = 18


class _ToDrawing(nn.Module):
    def __init__(self, model: FabRecFusedForLandmarkDetection):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        drawing, _ = self.model.draw(pixel_values)
        return tuple(_parts(drawing).values())


def _parts(drawing: Drawing) -> dict[str, torch.Tensor]:
    """Return the tensors of a drawing by the names that they have in the graph."""
    parts = {"heatmaps": drawing.heatmaps}
    if drawing.readout is not None:
        parts["readout"] = drawing.readout
    for name in ("maps", "mirrored_maps"):
        parts |= {f"{name}{place}": values for place, values in enumerate(getattr(drawing, name))}
    return parts


class _ToLandmarks(nn.Module):
    def __init__(self, model: FabRecFusedForLandmarkDetection, blur: str, names: Sequence[str]):
        super().__init__()
        self.model, self.blur, self.names = model, blur, names

    def forward(self, *parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        named = dict(zip(self.names, parts, strict=True))
        maps = (tuple(named[name] for name in self.names if name.startswith(kind)) for kind in ("maps", "mirrored"))
        drawing = Drawing(named["heatmaps"], named.get("readout"), *maps)
        found = self.model.decode(drawing, self.blur)
        return found.landmarks, found.scores


class _ToBoth(nn.Module):
    def __init__(self, drawing: _ToDrawing, landmarks: _ToLandmarks):
        super().__init__()
        self.drawing, self.landmarks = drawing, landmarks

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.landmarks(*self.drawing(pixel_values))


def export_model(
    model: FabRecForLandmarkDetection,
    processor: FabRecImageProcessor,
    output: str | Path,
    format: str = "onnx",
    quantize_by: Iterable[np.ndarray] | None = None,
) -> Path:
    """Export a landmark detector; all files are written, or none.

    Args:
        model: The detector; neither changed nor moved.
        processor: Its image processor, which is saved beside the graph.
        output: Folder to write to: the files of the format, `config.json` and `preprocessor_config.json`.
        format: `"onnx"`, `"openvino"` or `"torch"`.
        quantize_by: Batches of `pixel_values` (n, 3, S, S), float32, of real faces. With them the network is
            quantized to INT8 (post-training, NNCF); a few hundred faces do. Check the error afterward, as `fabrec
            export --int8` does.

    Returns:
        The folder.

    Raises:
        CheckpointError: The folder holds a checkpoint or a graph of another format.
        FabRecError: A package that the format needs is not installed, INT8 is asked of `"torch"`, or the folder
            cannot be written to.
        ValueError: The format is unknown.
    """
    if format not in FORMATS:
        raise ValueError(f"The format is one of {', '.join(FORMATS)}, not {format!r}.")
    if format == "torch" and quantize_by is not None:
        raise FabRecError("INT8 is for the formats onnx and openvino; export torch without --int8.")
    output = Path(output)
    check_export_folder(output, format)
    fused = _on_cpu(model)
    if format == "torch":
        graph = {FORMATS[format][0]: _torch_program(fused)}
    else:
        graph = _onnx_files(fused, processor, format, quantize_by)
    about = {"config.json": fused.config.to_json_string().encode()}
    about["preprocessor_config.json"] = processor.to_json_string().encode()
    write_files(output, graph | about)
    return output


def check_export_folder(folder: Path, format: str) -> None:
    """Refuse early what cannot become the folder of an export.

    Raises:
        CheckpointError: It holds a checkpoint, or a graph of another format: what would be run there is not clear.
        FabRecError: A file is in the way, or there is no permission to write.
    """
    check_output_folder(folder)
    kept = graph_format(folder)
    if any(folder.glob("*.safetensors")) or kept not in (None, format):
        what = "a checkpoint" if kept in (None, format) else f"an export for {kept}"
        raise CheckpointError(f"{folder} holds {what}: name another folder.")


def need_package(name: str) -> ModuleType:
    """Import a package of the extra `export`.

    Raises:
        FabRecError: It is not installed, and the line says how to install it; or it does not fit something else.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        raise FabRecError(f"{missing} is not installed: pip install 'fabrec-hf[export]'.") from error
    except ImportError as error:
        raise FabRecError(f"{name} cannot be imported: {error}.") from error


def _on_cpu(model: FabRecForLandmarkDetection) -> FabRecFusedForLandmarkDetection:
    fused = model.fuse().to("cpu", torch.float32)
    return fused.to(memory_format=torch.contiguous_format)


def _torch_program(fused: FabRecFusedForLandmarkDetection) -> bytes:
    graph = _ToBoth(_ToDrawing(fused), _ToLandmarks(fused, BLURS["torch"], list(_example_parts(fused)))).eval()
    content = io.BytesIO()
    with torch.no_grad(), _quiet():
        batch = torch.export.Dim("batch", min=1)
        program = torch.export.export(graph, (_example(fused),), dynamic_shapes=({0: batch},))
        torch.export.save(program, content)
    return content.getvalue()


def _onnx_files(
    fused: FabRecFusedForLandmarkDetection,
    processor: FabRecImageProcessor,
    format: str,
    quantize_by: Iterable[np.ndarray] | None,
) -> dict[str, bytes]:
    """Return the files of the formats "onnx" and "openvino" by name."""
    onnx, _ = need_package("onnx"), need_package("onnxscript")
    if format == "openvino":
        need_package("openvino")
    else:
        rewrite_for_onnx_runtime(fused, quantized=quantize_by is not None)
    drawing = _example_parts(fused)
    parts = list(drawing)
    network = _to_onnx(_ToDrawing(fused), (_example(fused),), ["pixel_values"], parts)
    if quantize_by is not None:
        network = _quantize(network, quantize_by)
    decoding = _to_onnx(
        _ToLandmarks(fused, BLURS[format], parts), (*drawing.values(),), parts, ["landmarks", "scores"]
    )
    decoding = onnx.compose.add_prefix(decoding, "decode/", rename_inputs=False, rename_outputs=False)
    decoding.ir_version = network.ir_version
    decoding.opset_import[0].version = network.opset_import[0].version
    graph = onnx.compose.merge_models(network, decoding, io_map=[(part, part) for part in parts])
    onnx.helper.set_model_props(graph, _about(fused, processor))
    onnx.checker.check_model(graph)
    content = graph.SerializeToString()
    return {FORMATS["onnx"][0]: content} if format == "onnx" else _to_openvino(content)


def _example(fused: FabRecFusedForLandmarkDetection) -> torch.Tensor:
    size = fused.config.image_size
    return torch.rand(2, 3, size, size)  # a batch of one would be taken for a constant


@torch.no_grad()
def _example_parts(fused: FabRecFusedForLandmarkDetection) -> dict[str, torch.Tensor]:
    return _parts(fused.draw(_example(fused))[0])


def _to_onnx(graph: nn.Module, example: tuple[torch.Tensor, ...], inputs: list[str], outputs: list[str]) -> Any:
    batch = {0: torch.export.Dim("batch", min=1)}
    # The tensors of `*drawing` are one argument.
    dynamic = ((batch,) * len(example),) if isinstance(graph, _ToLandmarks) else (batch,)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            graph.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=dynamic,
            verbose=False,
        )
    assert program is not None  # it is None only where a file is written
    return program.model_proto


def _quantize(network: Any, crops: Iterable[np.ndarray]) -> Any:
    """Give weights and activations of a network 8 bits, with ranges from real faces."""
    nncf = need_package("nncf")
    batches = [np.ascontiguousarray(batch, dtype=np.float32) for batch in crops]
    faces = [face[None] for batch in batches for face in batch]
    if not faces:
        raise FabRecError("There is no face that tells the ranges of INT8.")
    with _quiet(), redirect_stdout(sys.stderr):  # its progress bars are no output of ours
        data = nncf.Dataset(faces, lambda face: {"pixel_values": face})
        # "Mixed" ranges need not be symmetric. Symmetric ones would waste half of the 8 bits behind a ReLU.
        preset = nncf.QuantizationPreset.MIXED
        # The linear layers around the latent vector stay in 32 bits: all that is known of a face passes through it,
        # and they take no time.
        exact = nncf.IgnoredScope(types=["Gemm"])
        return nncf.quantize(network, data, preset=preset, subset_size=len(faces), ignored_scope=exact)


def _to_openvino(content: bytes) -> dict[str, bytes]:
    openvino = need_package("openvino")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source = Path(folder) / "model.onnx"
        source.write_bytes(content)
        target = Path(folder) / FORMATS["openvino"][0]
        # 16-bit weights would not give the same points.
        openvino.save_model(openvino.convert_model(source), target, compress_to_fp16=False)
        return {name: (Path(folder) / name).read_bytes() for name in FORMATS["openvino"]}


def _about(fused: FabRecFusedForLandmarkDetection, processor: FabRecImageProcessor) -> dict[str, str]:
    """What a program has to know that sees the ONNX file alone: how to make a crop, and what the points are called."""
    scheme = fused.config.landmark_scheme or {}
    values = {
        "image_size": fused.config.image_size,
        "image_mean": processor.image_mean,
        "image_std": processor.image_std,
        "extend_top": processor.extend_top,
        "extend_bottom": processor.extend_bottom,
        "point_names": scheme.get("point_names"),
        "scheme": scheme.get("name"),
    }
    return {name: json.dumps(value) for name, value in values.items() if value is not None}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress off the screen: what goes wrong is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
