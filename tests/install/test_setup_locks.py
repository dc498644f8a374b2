"""The lists of packages say the same everywhere, and the locks hold them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers import paths
from helpers.setup import environments
from helpers.setup.environments import EMBEDDED_TRITON
from tests.support import ROOT

LOCKS = ("requirements.lock", "containers/server-requirements.lock")
CLIENT, SERVER = environments.client_requirements(dev=True), environments.lines(environments.SERVER_PACKAGES)
# conda-forge calls these otherwise.
CONDA_NAMES = {"matplotlib-base": "matplotlib"}


def named(requirements: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, requirements)}


def extra(name: str) -> dict[str, Requirement]:
    return named(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][name])


@pytest.mark.parametrize(
    ("requirements", "lock"),
    [(CLIENT, LOCKS[0]), (SERVER, LOCKS[1])],
    ids=["client", "server"],
)
def test_the_lock_holds_every_package_within_its_range(requirements: list[str], lock: str) -> None:
    locked = environments.locked(lock)
    for name, requirement in named(requirements).items():
        assert requirement.specifier.contains(locked[name]), f"{name} {locked[name]} is not {requirement.specifier}: sh tools/lock.sh"


@pytest.mark.parametrize("requirements", [CLIENT, SERVER], ids=["client", "server"])
def test_every_range_has_an_upper_end(requirements: list[str]) -> None:
    for requirement in map(Requirement, requirements):
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {"=="} or {"<", ">="} <= operators, str(requirement)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_exact_versions_and_nothing_else(lock: str) -> None:
    lines = environments.lines(lock)
    assert len(lines) > 10
    assert len(environments.locked(lock)) == len(lines)
    for line in lines:
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[^\s;@]+( ; .+)?", line), line


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("version", ["3.11", "3.12"])
def test_a_lock_holds_for_both_pythons(lock: str, version: str) -> None:
    """A package that only one of them needs must say so, and no package may be left out for the other by its marker alone."""
    environment = {"python_version": version, "python_full_version": f"{version}.0", "sys_platform": "linux", "platform_machine": "x86_64"}
    requirements = CLIENT if lock == LOCKS[0] else SERVER
    holding = {
        canonicalize_name(one.name)
        for one in map(Requirement, environments.lines(lock))
        if not one.marker or one.marker.evaluate(environment)
    }
    assert set(named(requirements)) <= holding


def test_conda_lists_the_same_packages_and_ranges() -> None:
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    with_pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert "-e ." in with_pip
    texts = [entry for entry in dependencies if isinstance(entry, str)] + [entry for entry in with_pip if not entry.startswith("-")]
    conda = named(texts)
    python = conda.pop("python")
    del conda["pip"]
    conda = {CONDA_NAMES.get(name, name): requirement for name, requirement in conda.items()}
    ours = named(environments.client_requirements())
    assert {name: (one.specifier, one.extras) for name, one in conda.items()} == {
        name: (one.specifier, one.extras) for name, one in ours.items()
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert str(python.specifier) == str(Requirement(f"python{project['requires-python']}").specifier)


def test_the_server_has_numpy_1_the_client_numpy_2() -> None:
    assert environments.locked(LOCKS[1])["numpy"].startswith("1.26.")
    assert environments.locked(LOCKS[0])["numpy"].startswith("2.")


@pytest.mark.parametrize("pins", sorted((ROOT / "training").glob("*/requirements.txt")), ids=lambda path: path.parent.name)
def test_the_extra_train_covers_what_training_used(pins: Path) -> None:
    allowed = named(environments.client_requirements()) | extra("train")
    for name, pin in named(environments.lines(str(pins.relative_to(ROOT)))).items():
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert allowed[name].specifier.contains(exact.version), f"{name} in {pins} is not in pyproject's extra train"


def test_training_and_serving_use_one_pytorch() -> None:
    assert str(extra("train")["torch"].specifier) == str(named(SERVER)["torch"].specifier) == "==2.13.0"
    assert environments.locked(LOCKS[1])["torch"] == "2.13.0"


def test_the_wheel_of_the_server_is_pinned_and_has_the_release_that_is_told() -> None:
    assert environments.lines("containers/server-wheel.txt") == ["nvidia-pytriton==0.7.0", f"tritonclient=={EMBEDDED_TRITON}"]
    assert EMBEDDED_TRITON in (ROOT / "containers" / "server-wheel.txt").read_text()


@pytest.mark.parametrize(
    ("folder", "lock"), [(environments.folder_of("client"), LOCKS[0]), (paths.server_env(), LOCKS[1])], ids=["client", "server"]
)
def test_what_is_installed_is_what_is_locked(folder: object, lock: str) -> None:
    if environments.state("client" if lock == LOCKS[0] else "server") != "ready":
        pytest.skip(f"{folder} was not made by make")
    locked = environments.locked(lock)
    there = {name: version.split("+")[0] for name, version in environments.installed_versions(folder).items()}
    for tool in ("pip", "setuptools", "triton-course", "nvidia-pytriton", "tritonclient"):
        there.pop(tool, None)
    assert len(there) > 10
    assert there == {name: locked.get(name) for name in there}


def test_the_package_finds_its_version() -> None:
    import helpers

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "helpers.__version__"}
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == helpers.__version__
