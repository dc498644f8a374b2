"""The feature table, and what lies beside the served weights. Needs nothing but the client's environment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training.jets.dataset import transform
from training.jets.features import AK4, AK8, CANDIDATE_FEATURES, TAGGERS, VERTEX_FEATURES, Tagger

ROOT = Path(__file__).resolve().parents[2]
MODELS = [(tagger, suffix) for tagger in TAGGERS.values() for suffix in ("", "_PT")]
IDS = [tagger.model + suffix for tagger, suffix in MODELS]


def test_the_table_has_the_order_of_the_cms_networks():
    names = [f.name.removeprefix("pfcand_") for f in AK8.candidates]
    assert len(names) == 25
    assert names[:6] == ["pt_log_nopuppi", "e_log_nopuppi", "etarel", "phirel", "abseta", "charge"]
    assert names[6:11] == ["isEl", "isMu", "isGamma", "isChargedHad", "isNeutralHad"]
    assert names[-1] == "btagJetDistVal"
    assert [f.name for f in AK4.candidates] == [f"pfcand_{n}" for n in names[:6] + names[11:]]
    assert [f.name.removeprefix("sv_") for f in VERTEX_FEATURES][:3] == ["pt_log", "mass", "etarel"]
    assert (len(AK4.candidates), len(VERTEX_FEATURES)) == (20, 11)
    assert (len(AK4.labels), len(AK8.labels)) == (8, 20)


def test_transforms_shift_scale_and_clip():
    table = {f.name: f for f in CANDIDATE_FEATURES}
    chosen = [table["pfcand_dz"], table["pfcand_pt_log_nopuppi"], table["pfcand_charge"], table["pfcand_normchi2"]]
    values = np.array([[0.01, 3.0, -1.0, 999.0], [-9.0, np.nan, 7.0, np.inf]], np.float32)
    expected = [[1.8, 1.0, -1.0, 5.0], [-5.0, -0.5, 7.0, -1.0]]
    np.testing.assert_allclose(transform(values, chosen), expected, rtol=1e-6)


def test_the_table_imports_nothing_heavy():
    code = "import sys, training.jets.features; print([m for m in ('numpy', 'torch', 'awkward') if m in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


@pytest.mark.parametrize(("tagger", "suffix"), MODELS, ids=IDS)
def test_what_lies_beside_the_weights_is_the_table(tagger: Tagger, suffix: str):
    folder = ROOT / "models" / (tagger.model + suffix)
    assert json.loads((folder / "preprocess.json").read_text()) == json.loads(json.dumps(tagger.preprocess()))
    assert tuple((folder / "labels.txt").read_text().split()) == tagger.labels


@pytest.mark.parametrize(("tagger", "suffix"), MODELS, ids=IDS)
def test_the_config_keeps_the_contract(tagger: Tagger, suffix: str):
    text_format = pytest.importorskip("google.protobuf.text_format")
    model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    folder = ROOT / "models" / (tagger.model + suffix)
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config.ModelConfig())
    stems = ["pf_points", "pf_features", "pf_mask", "sv_points", "sv_features", "sv_mask"]
    widths = [2, len(tagger.candidates), 1, 2, 11, 1]
    numbered = bool(suffix)
    assert [i.name for i in config.input] == [f"{s}__{n}" if numbered else s for n, s in enumerate(stems)]
    assert [list(i.dims) for i in config.input] == [[w, -1] for w in widths]
    assert config.platform == ("pytorch_libtorch" if numbered else "onnxruntime_onnx")
    assert config.output[0].name == ("softmax__0" if numbered else "softmax")
    assert list(config.output[0].dims) == [len(tagger.labels)]
    assert config.max_batch_size == tagger.max_batch_size
    assert list(config.dynamic_batching.preferred_batch_size) == [tagger.preferred_batch_size]
    assert sum(w.count for w in config.model_warmup) >= 2
    for warmup in config.model_warmup:
        for name, entry in warmup.inputs.items():
            stored = (folder / "warmup" / entry.input_data_file).stat().st_size
            assert stored == 4 * entry.dims[0] * entry.dims[1], name
    mask = np.fromfile(folder / "warmup" / "pf_mask", "<f4")
    assert 2 <= mask.sum() <= mask.size, "the warm-up must be a real jet, not an empty one"


@pytest.mark.parametrize(("tagger", "suffix"), MODELS, ids=IDS)
def test_the_weights_are_small(tagger: Tagger, suffix: str):
    folder = ROOT / "models" / (tagger.model + suffix) / "1"
    files = [f for f in folder.iterdir() if f.suffix in (".pt", ".onnx", ".data")]
    assert len(files) == 1
    assert files[0].stat().st_size <= 3_000_000
