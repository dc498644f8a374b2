"""An ONNX Runtime runtime for MLServer, one thread. Imported by MLServer, in the environment of the peers."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    """One ONNX file, named by the ``uri`` of the model's settings."""

    async def load(self) -> bool:
        """Make the session."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        assert self.settings.parameters is not None
        self.session = ort.InferenceSession(str(self.settings.parameters.uri), options, providers=["CPUExecutionProvider"])
        self.names = [node.name for node in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run the session once."""
        inputs = {entry.name: np.asarray(NumpyCodec.decode_input(entry), dtype=np.float32) for entry in payload.inputs}
        results = self.session.run(self.names, inputs)
        outputs = [NumpyCodec.encode_output(name, result) for name, result in zip(self.names, results, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
