"""Every case of the benchmarks runs, in a size that takes seconds and says nothing about speed."""

from __future__ import annotations

import pytest

from benchmarks import __main__ as program
from benchmarks import cases
from benchmarks.cases import CASES
from helpers import paths, repository

# The others take a quarter of a minute and more each, of two cores' full work.
_SHORT = ("whole_machine",)


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(case, marks=[] if case in _SHORT else [pytest.mark.nightly]) for case in CASES])
def test_a_case_runs(case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, free_base_port, work) -> None:
    for name, value in {"BASE_PORT": free_base_port(), "WINDOW_MS": 200, "SLICE_S": 0.3}.items():
        monkeypatch.setattr(cases, name, value)
    program.main([case, "--trial"])
    *lines, machine = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert rows and "load average before" in machine
    assert all(float(row.split("|")[2].split()[0]) is not None for row in rows)


def test_the_measured_models_are_the_courses_own_with_one_thread(tmp_path) -> None:
    names = (cases.AK4, cases.AK4_PT)
    cases.one_thread(tmp_path, *names)
    for name in names:
        config = repository.read_config(tmp_path / name)
        (group,) = config.instance_group
        assert (group.count, group.kind) == (1, group.KIND_CPU) and not config.HasField("dynamic_batching")
        threads = [parameter.string_value for key, parameter in config.parameters.items() if key.lower().endswith("thread_count")]
        assert threads and set(threads) == {"1"}
        assert next((tmp_path / name / "1").glob("model.*")).read_bytes() == cases.file_of(name).read_bytes()
    assert paths.models_dir() / cases.AK4 != tmp_path / cases.AK4


def test_a_trials_figures_are_not_kept_and_unknown_cases_are_named() -> None:
    for words in (["fleet", "--trial", "--keep"], ["nonsense"]):
        with pytest.raises(SystemExit):
            program.main(words)
