"""Every case of the benchmarks runs, in a size that takes seconds and says nothing about speed."""

from __future__ import annotations

import re

import pytest

from benchmarks import __main__ as program
from benchmarks import again, cases, record
from benchmarks.cases import CASES
from helpers import machine, paths, repository
from helpers.errors import SetupError
from helpers.measuring.measure import sweep_file
from helpers.measuring.table import COLUMNS
from helpers.paths import read_lines

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


@pytest.mark.nightly
def test_what_is_recorded_are_the_loads_of_the_course(tmp_path, capsys, monkeypatch: pytest.MonkeyPatch, free_base_port, work) -> None:
    """All loads, each for a moment, into a file that is none of the course."""
    monkeypatch.setenv("COURSE_QUICK", "1")
    monkeypatch.setattr(record, "BASE_PORT", free_base_port())
    path = tmp_path / "recorded.jsonl"
    path.write_text("of before\n")
    record.main(["--output", str(path)])
    rows, before = read_lines(path), read_lines(sweep_file())
    assert f"{len(rows)} rows in {path}" in capsys.readouterr().out and len(path.read_text().splitlines()) == len(rows)
    names = ("model", "batch", "concurrency", "inputs", "inputs_digest", "source")
    assert [[row[name] for name in names] for row in rows] == [[row[name] for name in names] for row in before]
    # The inputs of TorchScript have their place behind their names.
    assert [re.sub(r"__\d+", "", row["shapes"]) for row in rows] == [row["shapes"] for row in before]
    assert all(list(row)[: len(COLUMNS)] == list(COLUMNS) and row["throughput_infer_per_s"] > 0 for row in rows)
    assert not any(str(work) in row["command"] for row in rows) and not (work / "record").exists()


def test_what_others_are_told_was_measured_without_a_gpu_is_not_recorded_with_one(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: ("NVIDIA T4",))
    with pytest.raises(SetupError, match=r"has a GPU \(NVIDIA T4\).*without one.*make test-gpu"):
        record.main(["--output", str(tmp_path / "recorded.jsonl")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.nightly
def test_equal_work_is_measured_again(capsys, monkeypatch: pytest.MonkeyPatch, free_base_port, work) -> None:
    """Two runs in place of ten, for a moment: what the figures say about this machine is not looked at."""
    monkeypatch.setenv("COURSE_QUICK", "1")
    monkeypatch.setenv("COURSE_WORK", str(work))  # the program changes it
    for name, value in {"BASE_PORT": free_base_port(), "RUNS": 2, "VERDICTS": 1}.items():
        monkeypatch.setattr(again, name, value)
    assert again.main() in (0, 1)
    said = capsys.readouterr().out
    assert "of 2 verdicts are faster or slower" in said and "of 3 pairs agree" in said and "beyond their own windows" in said


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
