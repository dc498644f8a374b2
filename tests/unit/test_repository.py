"""Reading, changing, comparing and copying models' folders: no server needed."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from helpers import paths, repository
from helpers.errors import ConfigError, ModelError, SetupError
from helpers.paths import writing
from helpers.repository.folders import raise_first
from helpers.repository.syntax import as_dict, parse

TEXT = """\
# A model of the course.
name: "demo"   # its folder
backend: 'python'
max_batch_size: 8
input [
  # three numbers
  { name: "X" data_type: TYPE_FP32 dims: [ 3 ] }
]
output { name: "Y" data_type: TYPE_FP32 dims: 3 }
output { name: "Z" data_type: TYPE_FP32 dims: 3 }
# how many
instance_group [ { count: 1 kind: KIND_CPU } ] # one
parameters { key: "k # {" value { string_value: "v } \\" [" } }
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's folder that is in order."""
    folder = tmp_path / "demo"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text("# code\n")
    (folder / "config.pbtxt").write_text(TEXT)
    return folder


def validate(model: Path) -> None:
    raise_first(repository.problems(model), model)


def text_of(model: Path) -> str:
    return (model / "config.pbtxt").read_text()


def test_read(model: Path) -> None:
    for place in (model, str(model)):
        config = repository.read_config(place)
        assert config.max_batch_size == 8
        assert [output.name for output in config.output] == ["Y", "Z"]
    assert repository.read_config("models/add_sub").name == "add_sub"
    assert repository.read_config("add_sub").backend == "python"


def test_what_is_not_there(model: Path) -> None:
    with pytest.raises(ModelError, match=r"no model folder 'ad_sub'.*Did you mean 'add_sub'"):
        repository.read_config("ad_sub")
    (model / "config.pbtxt").unlink()
    with pytest.raises(ConfigError, match=r"no .*demo/config.pbtxt"):
        repository.read_config(model)


@pytest.mark.parametrize(
    ("line", "column", "old", "new", "words"),
    [
        (5, 1, "input [", "inputs [", ['no field named "inputs"', "Did you mean 'input'?"]),
        (7, 26, "TYPE_FP32 dims: [ 3 ]", "FP32 dims: [ 3 ]", ["has no value named FP32", "Did you mean 'TYPE_FP32'?"]),
        (4, 17, "max_batch_size: 8", "max_batch_size: eight", ["eight"]),
        (3, 10, "'python'", "'python", ["quot"]),
        (12, 27, "count: 1", "count: -", ["integer"]),
        (8, 1, "dims: [ 3 ] }\n]", "dims: [ 3 ]\n]", ["a bracket, a comma or a quotation mark is often missing"]),
    ],
)
def test_a_syntax_error_is_shown_with_its_line_and_column(
    model: Path, line: int, column: int, old: str, new: str, words: list[str]
) -> None:
    assert old in TEXT
    (model / "config.pbtxt").write_text(TEXT.replace(old, new, 1))
    for check in (repository.read_config, validate):
        with pytest.raises(ConfigError) as caught:
            check(model)
        message = str(caught.value)
        assert f"config.pbtxt, line {line}, column {column}: " in message
        shown = TEXT.replace(old, new, 1).splitlines()[line - 1]
        assert f"  {line} | {shown}\n" in message
        marker = message.split(f"  {line} | ")[1].splitlines()[1]
        assert marker.index("^") - len(f"  {' ' * len(str(line))} | ") == column - 1
        for word in words:
            assert word in message


def test_an_end_that_comes_too_early(model: Path) -> None:
    (model / "config.pbtxt").write_text(TEXT + "dynamic_batching {\n")
    with pytest.raises(ConfigError, match=r"(?s)line 14, column 18: .*a bracket, .* is often missing"):
        validate(model)


def test_one_value_changes_and_everything_else_stays(model: Path) -> None:
    comparison = repository.change_config(model, max_batch_size=16)
    wanted = parse(TEXT)
    wanted.max_batch_size = 16
    assert repository.read_config(model) == wanted
    assert [(row.field, row.old, row.new, row.remark) for row in comparison.differences.rows] == [("max_batch_size", "8", "16", "changed")]
    # Text that a person can go on with: one field a line, lists of numbers on one line.
    assert 'name: "X"\n  data_type: TYPE_FP32\n  dims: [3]\n' in text_of(model)


def test_a_stanza_is_added_or_replaces_the_old_one(model: Path) -> None:
    repository.change_config(model, "dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }")
    repository.change_config(model, "instance_group [ { count: 3 kind: KIND_CPU } ]")
    config = repository.read_config(model)
    assert [group.count for group in config.instance_group] == [3]
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    assert config.parameters["k # {"].string_value == 'v } " ['


def test_fields_by_keyword(model: Path) -> None:
    repository.change_config(model, instance_group=[{"count": 2, "kind": "KIND_CPU"}], parameters=None, dynamic_batching={})
    config = repository.read_config(model)
    assert (config.instance_group[0].count, len(config.parameters), config.HasField("dynamic_batching")) == (2, 0, True)


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_line_ends_and_foreign_bytes_are_read(model: Path, ending: str) -> None:
    (model / "config.pbtxt").write_bytes(TEXT.replace("\n", ending).encode() + b"# caf\xe9\n")
    (model / "config.pbtxt").chmod(0o640)
    repository.change_config(model, max_batch_size=4, parameters={"\u00b5": {"string_value": "H \u2192 bb"}})
    config = repository.read_config(model)
    assert (config.max_batch_size, config.parameters["\u00b5"].string_value) == (4, "H \u2192 bb")
    assert "H \u2192 bb" in (model / "config.pbtxt").read_text(encoding="utf-8")
    assert stat.S_IMODE((model / "config.pbtxt").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_batchsize": 3}, 'no field named "max_batchsize"'),
        ({"max_batch_size": "many"}, "max_batch_size"),
        ({"edit": "instance_group [ { cuont: 1 } ]"}, r"(?s)line 1, column 20: .*\"cuont\"\..*Did you mean 'count'"),
        ({"default_model_filename": "modle.py"}, "version 1 has no modle.py"),
    ],
)
def test_a_change_with_a_fault_is_not_written(model: Path, change: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        repository.change_config(model, **change)
    assert text_of(model) == TEXT
    assert sorted(path.name for path in model.iterdir()) == ["1", "config.pbtxt"]


def test_the_models_of_the_course_are_not_edited() -> None:
    before = text_of(paths.models_dir() / "add_sub")
    with pytest.raises(ConfigError, match=r'belongs to the course.*checkout\("add_sub"\)'):
        repository.change_config("models/add_sub", max_batch_size=4)
    assert text_of(paths.models_dir() / "add_sub") == before


def test_one_column_says_what_the_file_has_where_nothing_was_changed(model: Path) -> None:
    same = repository.read_config(model)
    assert str(repository.compare(same, same, as_dict(same))).split()[:3] == ["field", "file", "server"]


def test_old_new_and_what_the_server_reports(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = repository.read_config(model)
    new = parse(TEXT.replace("count: 1", "count: 2"))
    reported = as_dict(new) | {"default_model_filename": "model.py", "max_batch_size": 4}
    comparison = repository.compare(old, new, reported)
    remarks = {row.field: row.remark for row in comparison.rows if row.remark}
    assert remarks == {
        "instance_group[0].count": "changed",
        "default_model_filename": "filled in by the server",
        "max_batch_size": "the server has another value",
    }
    monkeypatch.setenv("COLUMNS", "120")
    text = str(comparison)
    assert text.splitlines()[0].split() == ["field", "old", "new", "server", "reports"]
    assert "input[X].dims" in text
    page = comparison._repr_html_()
    assert page.count("<tr") == len(comparison.rows) + 1
    assert "filled in by the server" in page
    assert "&#x27;" not in str(comparison.differences)


def test_an_accelerator_for_gpus_has_no_effect_on_a_cpu() -> None:
    accelerators = {"execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt"}]}}
    config = {"name": "net", "optimization": accelerators}

    def remarks(*kinds: str) -> list[str]:
        view = repository.compare(config, config, {**config, "instance_group": [{"kind": kind} for kind in kinds]})
        return [row.remark for row in view.rows if "no effect" in row.remark]

    assert remarks("KIND_CPU") == ["no effect here: it needs a GPU, and the instances run on the CPU"]
    assert remarks("KIND_CPU", "KIND_GPU") == remarks("KIND_GPU") == remarks() == []


def test_a_config_as_a_dictionary(model: Path) -> None:
    assert as_dict(parse("max_batch_size: 3 dynamic_batching { }")) == {"max_batch_size": 3, "dynamic_batching": {}}
    with pytest.raises(ConfigError, match=r"the config, line 2, column 1"):
        parse("max_batch_size: 3\n}", "the config")
    with pytest.raises(ConfigError, match="max_batch_size"):
        repository.change_config(model, max_batch_size=[])


def test_the_tree_shows_sizes_and_marks_what_is_wrong(model: Path, tmp_path: Path) -> None:
    (model / "1" / "__pycache__").mkdir()
    (model / "2").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    lines = repository.tree(tmp_path).splitlines()
    assert lines[0] == f"{tmp_path.name}/"
    assert "├── bare/  ◀ no config.pbtxt" in lines
    assert "│   │   └── model.py  7 bytes" in lines
    assert "├── demo/  ◀ version 2 has no model.py" in lines
    assert lines[-1] == "└── notes.txt  1 bytes"
    assert "__pycache__" not in "\n".join(lines)
    assert "empty" in repository.tree(model / "2")
    with pytest.raises(ModelError, match="no folder 'nowhere'"):
        repository.tree("nowhere")
    assert "add_sub/" in repository.tree("models")


@pytest.fixture
def own_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of ``work/`` where no other test leaves anything."""
    monkeypatch.setenv("COURSE_WORK", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("lines", "file", "fault"),
    [
        ('backend: "pytorch"', "model.pt", None),
        ('backend: "pytorch"', "model.pth", "has no model.pt"),
        ('platform: "pytorch_libtorch"', "model.pt", None),
        ('backend: "pytorch" default_model_filename: "model.pth"', "model.pth", None),
    ],
)
def test_the_file_of_a_pytorch_model(tmp_path: Path, lines: str, file: str, fault: str | None) -> None:
    (tmp_path / "net" / "1").mkdir(parents=True)
    (tmp_path / "net" / "1" / file).touch()
    (tmp_path / "net" / "config.pbtxt").write_text(lines + "\n")
    found = repository.faults(tmp_path)
    assert found == {} if fault is None else fault in found["net"]


def test_a_working_copy_is_made_once_and_never_written_over(own_work: Path) -> None:
    folder = repository.checkout("add_sub")
    assert folder == own_work / "models"
    assert text_of(folder / "add_sub") == text_of(paths.models_dir() / "add_sub")
    repository.change_config("add_sub", max_batch_size=0, instance_group=[{"count": 2, "kind": "KIND_CPU"}])
    mine = text_of(folder / "add_sub")
    assert repository.checkout("add_sub") == folder
    assert text_of(folder / "add_sub") == mine
    repository.checkout("add_sub", fresh=True)
    assert text_of(folder / "add_sub") == text_of(paths.models_dir() / "add_sub")
    kept = list((own_work / "models.old").iterdir())
    assert [text_of(path) for path in kept] == [mine]
    with pytest.raises(ModelError, match="Did you mean 'add_sub'"):
        repository.checkout("addsub")
    assert repository.locate("add_sub") == folder / "add_sub"
    assert repository.locate("work/models/add_sub") == folder / "add_sub"
    shutil.rmtree(folder)
    shutil.rmtree(own_work / "models.old")


def test_all_models_are_copied_when_none_is_named(own_work: Path) -> None:
    folder = repository.checkout()
    assert {path.name for path in folder.iterdir()} >= {"add_sub"}
    assert not list(own_work.glob(".checkout-*"))
    shutil.rmtree(folder)


def test_no_permission_and_a_full_disk_give_one_paragraph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("x")
    monkeypatch.setenv("COURSE_WORK", str(in_the_way))
    with pytest.raises(SetupError, match=r"cannot be written: .*COURSE_WORK"):
        repository.checkout("add_sub")
    # /dev/full refuses every write as a full disk does; a model that is a link to it is the nearest thing to one here.
    with pytest.raises(SetupError, match=r"No space left on device.*df -h"), writing(tmp_path), open("/dev/full", "w") as full:
        full.write("x")
    if os.geteuid() != 0:
        (tmp_path / "shut").mkdir(mode=0o500)
        monkeypatch.setenv("COURSE_WORK", str(tmp_path / "shut"))
        with pytest.raises(SetupError, match="Permission denied"):
            repository.checkout("add_sub")


@pytest.mark.parametrize("name", ["two words", "net (1)", "it's", "mod\u00e8le", "b&c;d", "$HOME", "tab\there", "`date`", "new\nline"])
def test_a_name_that_a_shell_would_take_apart_is_refused(model: Path, name: str) -> None:
    renamed = model.rename(model.with_name(name))
    (renamed / "config.pbtxt").write_text(TEXT.replace('name: "demo"', ""))
    with pytest.raises(ConfigError, match=r"(?s)the folder's name .*English alphabet.*Give the folder another name"):
        validate(renamed)
    assert set(repository.faults(renamed.parent, hanging=True)) == {name}
    assert f"{name}/  ◀ the folder's name" in repository.tree(renamed.parent)
    # Neither config nor file: the name is said first.
    (renamed / "config.pbtxt").unlink()
    assert "the folder's name" in repository.faults(renamed.parent, hanging=True)[name]


@pytest.mark.parametrize("name", ["net-2", "net.v1", "N_1+x", "7", "a=b", "a@b,c"])
def test_other_names_are_fine(model: Path, name: str) -> None:
    renamed = model.rename(model.with_name(name))
    repository.change_config(renamed, name=name)
    assert repository.problems(renamed) == []
