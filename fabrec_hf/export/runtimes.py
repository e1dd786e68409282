"""Run what `fabrec export` wrote, in the runtime that it was written for."""

import threading
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..checkpoints.weight_files import graph_format
from ..errors import CheckpointError
from ..model.configuration_fabrec import FabRecConfig
from ..model.image_processing_fabrec import FabRecImageProcessor
from ..model.outputs_fabrec import FabRecLandmarkOutput
from .runtime_files import FORMATS, need_package


__all__ = ["ExportedLandmarkDetector", "load_exported"]

Runner = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class ExportedLandmarkDetector:
    """An exported detector that is called as the model is, and goes where only its landmarks are asked for.

    Safe to call from several threads.

    Args:
        run: From `pixel_values` to landmarks and scores.
        config: The model's configuration.
        files: The graph and, where they lie apart, its weights.

    Attributes:
        name_or_path: The folder that it was loaded from.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, run: Runner, config: FabRecConfig, files: Sequence[Path]):
        self._run = run
        self.config = config
        self.files = tuple(files)
        self.name_or_path = str(self.files[0].parent)

    def __call__(self, pixel_values: torch.Tensor | np.ndarray) -> FabRecLandmarkOutput:
        """Detect landmarks in face crops (N, 3, S, S); `landmarks` (N, L, 2) and `scores` (N, L) are set."""
        pixels = np.ascontiguousarray(torch.as_tensor(pixel_values).cpu().numpy(), dtype=np.float32)
        landmarks, scores = self._run(pixels)
        return FabRecLandmarkOutput(landmarks=torch.as_tensor(landmarks), scores=torch.as_tensor(scores))


def load_exported(
    folder: str | Path, threads: int | None = None, dtype: torch.dtype = torch.float32
) -> tuple[ExportedLandmarkDetector, FabRecImageProcessor]:
    """Load an export into its own runtime, on the CPU.

    Args:
        folder: What `fabrec export` wrote.
        threads: How many threads one call of ONNX Runtime or OpenVINO computes with, by default as many as the
            runtime likes. A `torch` export computes with PyTorch's own.
        dtype: `torch.bfloat16` lets OpenVINO compute in 16 bits where the CPU has instructions for it, which is
            faster and moves points by a fraction of a pixel; elsewhere it changes nothing. The other runtimes
            compute in the types that the export was written with.

    Returns:
        The detector and its image processor.

    Raises:
        CheckpointError: The folder holds no export, or a damaged one.
        ValueError: `dtype` is one that the runtime of this export does not compute in.
        FabRecError: The runtime is not installed.
    """
    folder = Path(folder)
    format = graph_format(folder)
    if format is None:
        names = ", ".join(files[0] for files in FORMATS.values())
        raise CheckpointError(f"{folder} holds no exported model: it has none of {names}.")
    if dtype != torch.float32 and (format != "openvino" or dtype != torch.bfloat16):
        raise ValueError(f"{format} exports do not run in {dtype}: only OpenVINO's do, in torch.bfloat16.")
    openvino = partial(_load_openvino, precision="bf16" if dtype == torch.bfloat16 else "f32")
    loaders: dict[str, Callable[[Path, int | None], Runner]] = {
        "onnx": _load_onnx,
        "openvino": openvino,
        "torch": _load_torch,
    }
    runtimes = {"onnx": "onnxruntime", "openvino": "openvino"}
    if format in runtimes:
        need_package(runtimes[format])
    try:
        config = FabRecConfig.from_pretrained(folder)
        processor = FabRecImageProcessor.from_pretrained(folder)
        run = loaders[format](folder / FORMATS[format][0], threads)
    except Exception as error:  # every runtime has errors of its own for a damaged file, some of them bare
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CheckpointError(f"The export {folder} cannot be loaded: {reason}") from error
    return ExportedLandmarkDetector(run, config, [folder / name for name in FORMATS[format]]), processor


def _load_onnx(path: Path, threads: int | None) -> Runner:
    runtime = need_package("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(["landmarks", "scores"], {"pixel_values": pixels})


@cache
def _openvino_core() -> Any:
    """Return the one of this process.

    Each puts a stack for signals of its own in the place of the one before. Of two that are freed in the order in
    which they were made, the second brings back the stack of the first, which is freed, and the next signal that
    Python has a handler for ends the process (seen in OpenVINO 2026.4).
    """
    return need_package("openvino").Core()


def _load_openvino(path: Path, threads: int | None, precision: str) -> Runner:
    # Left to itself OpenVINO takes 16 bits where the CPU can, and no longer gives the same points everywhere.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = _openvino_core().compile_model(path, "CPU", settings)
    local = threading.local()  # a request is for one thread at a time

    def run(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        found = local.request.infer({"pixel_values": pixels}, share_inputs=True)
        return found["landmarks"].copy(), found["scores"].copy()

    return run


def _load_torch(path: Path, threads: int | None) -> Runner:
    module = torch.export.load(path).module()

    def run(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            return module(torch.from_numpy(pixels))

    return run
