"""The network for a phone: an ExecuTorch program that runs on XNNPACK, one image at a time."""

import copy
import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from skinlesion.serving.export.measure import Exported, Outputs, Runtime, example
from skinlesion.serving.model import LesionModel


def write_pte(model: LesionModel, path: Path) -> None:
    """Write a model as one `.pte` file, float32; inputs and outputs as of `write_onnx`, of one."""
    _find_compiler()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        # XNNPACK's passes decide on the order in memory themselves, and fail on channels_last.
        module: nn.Module = copy.deepcopy(Exported(model)).eval()
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        traced = torch.export.export(module, example(model, batch=1))
        edge = to_edge_transform_and_lower(traced, partitioner=[XnnpackPartitioner()])
        path.write_bytes(edge.to_executorch().buffer)


def pte_runtime(path: Path, metadata_branch: bool, threads: int | None = None) -> Runtime:
    """Return a `.pte` file as ExecuTorch's Python runtime runs it, image by image.

    The threads are those of the whole runtime from now on; None for its own choice.
    """
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime as ExecuTorch

    if threads not in (None, portable_lib._threadpool_get_thread_count()):
        portable_lib._unsafe_reset_threadpool(threads)
    program = ExecuTorch.get().load_program(path)
    method: Any = program.load_method("forward")

    def run(image: NDArray[np.uint8], metadata: NDArray[np.float32]) -> Outputs:
        arrays = (image, metadata) if metadata_branch else (image,)
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        found = [
            # The next call writes into the same memory.
            [output.clone() for output in method.execute([t[i : i + 1] for t in tensors])]
            for i in range(len(image))
        ]
        return Outputs(*(torch.cat(column).numpy() for column in zip(*found, strict=True)))

    return run


def _find_compiler() -> None:
    """Tell ExecuTorch where its own compiler is: it looks on the PATH, where it need not be."""
    spec = find_spec("executorch")
    assert spec is not None  # checked before any work
    for folder in spec.submodule_search_locations or ():
        compiler = Path(folder) / "data" / "bin" / "flatc"
        if compiler.exists():
            os.environ.setdefault("FLATC_EXECUTABLE", str(compiler))
