"""What an exporter writes beside the network, and nobody should get: the paths of the machine that it ran on."""

from __future__ import annotations

from pathlib import Path


def forget_origin(path: Path) -> None:
    """Take stack traces and other notes of the exporter out of an ONNX file; the network stays as it is."""
    import onnx  # Checking an export needs none of it, and the server's environment, which checks, does not have it.

    model = onnx.load(path)
    del model.metadata_props[:]
    for graph in (model.graph, *model.functions):
        del graph.metadata_props[:]
        for part in (*graph.node, *graph.value_info):
            del part.metadata_props[:]
            part.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]
    onnx.save(model, path)
