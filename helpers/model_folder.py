"""A model's folder in a repository: what is in it, and which versions a server loads."""

from __future__ import annotations

from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

CONFIG = "config.pbtxt"

# Files from which Triton can tell the backend without a config.
_SELF_EXPLAINING = ("model.py", "model.onnx", "model.pt", "model.plan", "model.xml")


def visible(folder: Path) -> list[Path]:
    """The entries of a folder that belong to a repository, sorted: no hidden ones, no Python caches."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__pycache__")


def versions(folder: Path) -> list[Path]:
    """The version folders, lowest first."""
    # Triton takes no leading zeros, and sorts by number.
    found = [path for path in visible(folder) if path.is_dir() and path.name.isdecimal() and path.name == str(int(path.name))]
    return sorted(found, key=lambda path: int(path.name))


def served(folder: Path, config: ModelConfig) -> list[Path]:
    """The version folders that the server loads: the latest one, unless version_policy says otherwise."""
    found = versions(folder)
    policy = config.version_policy.WhichOneof("policy_choice")
    if policy == "all":
        return found
    if policy == "specific":
        return [path for path in found if int(path.name) in config.version_policy.specific.versions]
    return found[-max(config.version_policy.latest.num_versions, 1) :]


def guessable(folder: Path) -> bool:
    """Whether Triton can tell from the model file what runs it, without a config."""
    return any((version / name).exists() for version in versions(folder) for name in _SELF_EXPLAINING)
