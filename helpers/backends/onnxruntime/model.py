"""Backend ``onnxruntime`` of the embedded server: serves ``model.onnx`` files by the rules of the native backend.

A Triton "Python-based backend": every model whose config says ``backend: "onnxruntime"`` or ``platform: "onnxruntime_onnx"``
is an instance of this class, in a process of its own. In a Triton container the native backend serves the same models.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# This file is reached through a link in the server's backend directory; the other modules lie beside the real one.
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "common"))

import numpy as np
import triton_python_backend_utils as pb_utils
from course_backend import Arrays, ModelFault, ServedModel, Settings, decoded, model_file, one_line, refuse_unsupported


class TritonPythonModel(ServedModel):
    """One instance of an ONNX model."""

    DEFAULT_FILE = "model.onnx"

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Fill in what the config leaves out, from the ONNX file, as the native backend does."""
        config = auto_complete_model_config.as_dict()
        if config["input"] and config["output"]:
            return auto_complete_model_config
        try:
            refuse_unsupported(config)
            path = model_file(Path(pb_utils.get_model_dir()), config, TritonPythonModel.DEFAULT_FILE)
            from onnx_model import Model  # takes its time, and a complete config needs none of it

            Model(path).complete(config)
        except ModelFault as fault:
            raise pb_utils.TritonModelException(f"model '{config['name']}': {fault}") from None
        return auto_complete_model_config

    def load(self, settings: Settings) -> None:
        """Make the ONNX Runtime session and compare its tensors with the config."""
        from onnx_model import Model

        model = Model(settings.path, settings)
        pb_utils.Logger.log_info(f"{settings.instance}: {model.summary}")
        model.check(settings)
        self.session = model.session
        self.strings = {spec.name for spec in settings.inputs if spec.dtype == "TYPE_STRING"}
        self.scalars = {tensor.name for tensor in model.inputs + model.outputs if not tensor.dims}
        self.output_dims = {spec.name: spec.dims for spec in settings.outputs}

    def run(self, inputs: Arrays, wanted: Sequence[str]) -> list[np.ndarray]:
        """Run the session once."""
        for name in self.strings & inputs.keys():
            # Triton brings strings as bytes, ONNX Runtime's Python interface takes text.
            inputs[name] = np.array(decoded(name, inputs[name]), dtype=object).reshape(inputs[name].shape)
        for name in self.scalars & inputs.keys():
            inputs[name] = inputs[name].reshape(())
        try:
            outputs = self.session.run(wanted, inputs)
        except Exception as error:
            raise RuntimeError(f"ONNX Runtime: {one_line(error)}") from None
        if self.scalars:
            return [
                np.asarray(output).reshape(self.output_dims[name]) if name in self.scalars else output
                for name, output in zip(wanted, outputs, strict=True)
            ]
        return outputs
