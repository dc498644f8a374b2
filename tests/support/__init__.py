"""What the tests share: models, engines, other users, fronts, and how to look at processes."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS_FOR_TESTS = Path(__file__).parent / "models_for_tests"
FAULTY_MODELS = Path(__file__).parent / "faulty_models"
