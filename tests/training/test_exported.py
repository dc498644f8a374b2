"""What ships must not tell on which machine it was made."""

from __future__ import annotations

from pathlib import Path

import pytest

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/*/model.onnx")), ids=lambda path: path.parts[-3])
def test_no_path_of_the_machine_is_in_the_file(path: Path):
    content = path.read_bytes()
    assert b"stack_trace" not in content
    assert b".py" not in content
