"""What a model takes and gives, as the server reports it, and the check of inputs against it before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tritonclient.utils import triton_to_np_dtype

from helpers.client.tensors import to_tensor
from helpers.errors import InputError
from helpers.wording import quoted, suggestion

# The longest that an axis may be, and the most bytes that one request may hold: what a gRPC message can. Triton 2.51 multiplies lengths
# without a look at what 64 bits hold, so an empty tensor with one length of 2^62 ends a model's process, and it has no limit of its own.
MAX_LENGTH = MAX_REQUEST_BYTES = 2**31 - 1


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: its name in ``config.pbtxt``.
        datatype: Triton's name of its dtype, such as ``FP32``.
        shape: its full shape with the batch axis, where the model has one; -1 for an axis of any length.
        optional: True for an input that may be left out.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class Signature:
    """Names, dtypes and shapes of a model.

    Attributes:
        model: name of the model.
        max_batch_size: largest batch of one request; 0 when the model has no batch axis, or when the server does not say.
        inputs: the inputs by name, in the model's order.
        outputs: the outputs by name, in the model's order.
        label_files: label file by output name, where the model has them.
    """

    model: str
    max_batch_size: int
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    label_files: dict[str, str]

    @classmethod
    def from_server(cls, metadata: Mapping[str, Any], config: Mapping[str, Any] | None) -> Signature:
        """Read a signature from the server's metadata and, where the server gives one, its config."""
        config = config or {}
        optional = {entry["name"] for entry in config.get("input", ()) if entry.get("optional")}
        labels = {entry["name"]: entry["label_filename"] for entry in config.get("output", ()) if entry.get("label_filename")}

        def specs(entries: Iterable[Mapping[str, Any]]) -> dict[str, TensorSpec]:
            return {
                entry["name"]: TensorSpec(
                    name=entry["name"],
                    datatype=entry["datatype"],
                    shape=tuple(int(length) for length in entry.get("shape", ())),
                    optional=entry["name"] in optional,
                )
                for entry in entries
            }

        return cls(
            model=metadata["name"],
            max_batch_size=int(config.get("max_batch_size", 0)),
            inputs=specs(metadata.get("inputs", ())),
            outputs=specs(metadata.get("outputs", ())),
            label_files=labels,
        )

    @property
    def batched(self) -> bool:
        """Whether the first axis of every tensor is the batch."""
        return self.max_batch_size > 0

    def check(self, inputs: Any) -> dict[str, np.ndarray]:
        """Check inputs against the model and turn them into tensors.

        Args:
            inputs: values by input name.

        Returns:
            Arrays of the model's dtypes by input name, in the model's order.

        Raises:
            InputError: a name, dtype, rank or shape does not fit, or the batch is empty; says what was given and expected.
        """
        if not isinstance(inputs, Mapping):
            first = next(iter(self.inputs), "INPUT")
            raise InputError(
                f"The inputs of {self.model!r} were given as {type(inputs).__name__}.",
                "Expected a dictionary from input names to arrays.",
                f'Type: {{"{first}": x}}',
            )
        self._check_names(inputs)
        arrays = {name: to_tensor(name, inputs[name], spec.datatype) for name, spec in self.inputs.items() if name in inputs}
        for name, array in arrays.items():
            self._check_shape(self.inputs[name], array)
        if self.batched:
            self._check_batch(arrays)
        return arrays

    def check_outputs(self, names: Iterable[str] | str | None) -> list[str]:
        """The names of the wanted outputs, all of them for None.

        Raises:
            InputError: the model has no output of that name.
        """
        if names is None:
            return list(self.outputs)
        wanted = [names] if isinstance(names, str) else list(names)
        for name in wanted:
            if name not in self.outputs:
                raise InputError(
                    f"The model {self.model!r} has no output {name!r}.",
                    f"Its outputs are {quoted(self.outputs)}.",
                    suggestion(name, self.outputs),
                )
        return wanted

    def check_classes(self, names: Iterable[str]) -> None:
        """Refuse to ask for the best classes of outputs of which Triton 2.51 cannot give any: it ends on strings and on empty outputs.

        Raises:
            InputError: an output is of strings, or of open length.
        """
        for name in names:
            spec = self.outputs[name]
            own = spec.shape[1:] if self.batched else spec.shape
            if spec.datatype == "BYTES" or min(own, default=1) < 1:
                raise InputError(
                    f"The output {name!r} of {self.model!r} has no classes: it is {self.describe(spec)}. Nothing was sent.",
                    "Expected an output of a fixed number of scores; asking for classes of another one would end the server.",
                    f'Leave classes out, or name an output that has some: client.infer({self.model!r}, …, outputs="…", classes=3)',
                )

    def check_size(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Refuse one request that is too large.

        Args:
            inputs: the tensors of the request by name.

        Raises:
            InputError: they hold more bytes than one request may.
        """
        size = sum(sum(4 + len(item) for item in array.flat) if array.dtype == object else array.nbytes for array in inputs.values())
        if size > MAX_REQUEST_BYTES:
            raise InputError(
                f"The inputs of {self.model!r} have {size:,} bytes in one request. Nothing was sent.",
                f"Expected at most {MAX_REQUEST_BYTES:,} bytes; the server would need several times as much memory.",
                "Send it in several requests: client.infer_many(…)",
            )

    def output_sizes(self, names: Iterable[str], inputs: Mapping[str, tuple[np.ndarray, str]]) -> dict[str, int]:
        """Sizes in bytes of those outputs whose shape is known before the answer, for inputs that were checked."""
        batch = next((array.shape[0] for array, _ in inputs.values()), 1) if self.batched else 1
        sizes = {}
        for name in names:
            spec = self.outputs[name]
            shape = (batch, *spec.shape[1:]) if self.batched else spec.shape
            if spec.datatype != "BYTES" and min(shape, default=1) >= 0:
                sizes[name] = int(np.prod(shape, dtype=np.int64)) * np.dtype(triton_to_np_dtype(spec.datatype)).itemsize
        return sizes

    def example(self, batch: int = 1, any_length: int = 20) -> dict[str, np.ndarray]:
        """Made-up inputs that fit: normal numbers, small integers, ones for masks, the same each time.

        Args:
            batch: entries in the batch; ignored where the model has no batch axis.
            any_length: length of the axes that may have any.
        """
        random = np.random.default_rng(1)
        inputs = {}
        for name, spec in self.inputs.items():
            shape = [any_length if length < 0 else length for length in spec.shape]
            if self.batched:
                shape[0] = batch
            if spec.datatype == "BYTES":
                inputs[name] = np.full(shape, b"text", dtype=object)
            elif spec.datatype == "BOOL" or "mask" in name.lower():
                inputs[name] = np.ones(shape, dtype=triton_to_np_dtype(spec.datatype))
            elif np.dtype(triton_to_np_dtype(spec.datatype)).kind in "iu":
                inputs[name] = random.integers(0, 10, shape).astype(triton_to_np_dtype(spec.datatype))
            else:
                inputs[name] = random.standard_normal(shape).astype(triton_to_np_dtype(spec.datatype))
        return inputs

    def describe(self, spec: TensorSpec) -> str:
        """A tensor in words: ``FP32 with shape (batch up to 160, 25, any)``."""
        sizes = ["any" if length < 0 else str(length) for length in spec.shape]
        if self.batched and sizes:
            sizes[0] = f"batch up to {self.max_batch_size}"
        return f"{spec.datatype} with shape ({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"

    def _check_names(self, inputs: Mapping[str, Any]) -> None:
        unknown = [name for name in inputs if name not in self.inputs]
        missing = [name for name, spec in self.inputs.items() if name not in inputs and not spec.optional]
        if not unknown and not missing:
            return
        faults = [f"has no input {quoted(unknown)}"] if unknown else []
        faults += [f"got nothing for {quoted(missing)}"] if missing else []
        hints = [suggestion(name, missing or self.inputs) for name in unknown]
        known = (f"{name!r}: {self.describe(spec)}{' (optional)' if spec.optional else ''}" for name, spec in self.inputs.items())
        raise InputError(
            f"The model {self.model!r} {' and '.join(faults)}.", f"Its inputs are {'; '.join(known)}.", " ".join(filter(None, hints))
        )

    def _check_shape(self, spec: TensorSpec, array: np.ndarray) -> None:
        if max(array.shape, default=0) > MAX_LENGTH:
            raise InputError(
                f"The input {spec.name!r} of {self.model!r} has shape {array.shape}. Nothing was sent.",
                f"Expected at most {MAX_LENGTH:,} along each axis; a longer one could end the server.",
                "Bring the array into another shape.",
            )
        same_rank = array.ndim == len(spec.shape)
        # The batch axis may be longer than the model's limit: such a batch is split.
        free = 1 if self.batched else 0
        if same_rank and all(want < 0 or want == got for want, got in list(zip(spec.shape, array.shape, strict=True))[free:]):
            return
        raise InputError(
            f"The input {spec.name!r} of {self.model!r} has shape {array.shape}.",
            f"The model expects {self.describe(spec)}.",
            self._shape_hint(spec, array),
        )

    def _shape_hint(self, spec: TensorSpec, array: np.ndarray) -> str:
        def fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
            return len(shape) == len(wanted) and all(want < 0 or want == got for want, got in zip(wanted, shape, strict=True))

        if self.batched and fits(array.shape, spec.shape[1:]):
            return "The batch axis is missing. Type: x[np.newaxis], which makes a batch of one"
        if not self.batched and array.shape[:1] == (1,) and fits(array.shape[1:], spec.shape):
            return "This model has no batch axis. Type: x[0]"
        if array.ndim >= 2 and fits((*array.shape[:-2], array.shape[-1], array.shape[-2]), spec.shape):
            return "The last two axes look swapped. Type: x.swapaxes(-1, -2)"
        return "Bring the array into that shape, and look at one entry to see that its numbers are where you want them."

    def _check_batch(self, arrays: Mapping[str, np.ndarray]) -> None:
        sizes = {name: array.shape[0] for name, array in arrays.items()}
        if 0 in sizes.values():
            empty = next(name for name, size in sizes.items() if size == 0)
            raise InputError(
                f"The batch of input {empty!r} of {self.model!r} is empty: its shape is {arrays[empty].shape}.",
                "Expected at least one entry along the first axis.",
                "Leave such a request out, or look why no entry passed your selection.",
            )
        if len(set(sizes.values())) > 1:
            given = ", ".join(f"{name!r}: {size}" for name, size in sizes.items())
            raise InputError(
                f"The inputs of {self.model!r} have batches of different length ({given}).",
                "Expected the same number of entries in all of them.",
                "Cut or pad them to one length along the first axis.",
            )


def split(arrays: Mapping[str, np.ndarray], max_batch_size: int) -> list[dict[str, np.ndarray]]:
    """Cut a batch into parts of at most ``max_batch_size`` entries; 0 means that there is no batch axis to cut."""
    size = next((array.shape[0] for array in arrays.values()), 0) if max_batch_size else 0
    if size <= max_batch_size:
        return [dict(arrays)]
    return [{name: array[start : start + max_batch_size] for name, array in arrays.items()} for start in range(0, size, max_batch_size)]
