"""What must be true in the kernel when a notebook has run, as Python by the notebook's number; none of it depends on speed."""

from __future__ import annotations

import textwrap


def replaced(text: str, changes: dict[str, str]) -> str:
    """The text with each key as its value."""
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def python(*parts: str) -> str:
    """Parts of a program, each indented as it stands in its module, as one program."""
    return "\n".join(map(textwrap.dedent, parts))


# By day shorter windows and sweeps of fewer points stand in a notebook and in its values, and prove the same; at night it runs as it is.
FEWER = {
    "04": {
        **{'jets.read("ak8")': 'jets.read("ak8")[:800]', 'jets.read("ak4")': 'jets.read("ak4")[:1000]'},
        **{"[:300]": "[:200]", '"Hbb", "QCD")][:100]': '"Hbb", "QCD")][:60]'},
    },
    "05": {"(0.05, 0.5, 0.9, 0.99)": "(0.5, 0.99)", "(crowded * 2)[:8]": "crowded[:2]"},
    "07": {"-p 1000 --max-trials 6": "-p 200 --max-trials 3", "repeat=200": "repeat=50"},
    "08": {"(1, 4, 16, 32)": "(1, 16)", "(1, 2, 4, 8)": "(1, 4)", "(1, 4, 16)": "(1, 4)"},
    "09": {"[256:1256]": "[256:768]"},
    "10": {"(1, 2, 4, 8)": "(1, 8)"},
    "11": {"(1, 4, 16, 64)": "(1, 4, 16)"},
}
# When the notebook was solved.
VALUES = {
    "00": """
        assert result["OUTPUT0"].tolist() == [10.0 + i for i in range(16)]
        assert result["OUTPUT1"].tolist() == [i - 10.0 for i in range(16)]
        assert z_mass == 91
        rows = course_map()
        assert len({*rows[0]["your exercises"].split(" of ")}) == 1 and len(rows) >= 11, rows
    """,
    "01": """
        assert options == {"runtime": "docker", "base_port": 9307}
        assert report["instances"] == 1 and report["metrics_port"] > 9000
        assert 0 < report["loading_s"] < 60
        assert second.state() == "stopped" and second.http.port > server.http.port
        assert revived is server and revived.pid != dead_pid
    """,
    "02": """
        assert found == {"instances": 1, "file": "model.py", "versions": 1}
        assert (models / "dimuon_mass" / "1" / "model.py").is_file()
        rows = {row.field: row.reported for row in repository.compare(models / "add_sub", models / "add_sub", reported).rows}
        assert rows["default_model_filename"] == "model.py"
    """,
    "03": """
        assert np.array_equal(answer.as_numpy("OUTPUT0"), ecal + hcal)
        assert seen.index.tolist() == list(send_by) and (seen["min"] > 0).all() and 4.2 < seen["MB"]["gRPC"] == seen["MB"]["HTTP"] < 4.3
        assert seen["MB"]["shared memory"] == 0 < seen["MB"]["compressed"] < 1 and seen["MB"]["HTTP"] < seen["MB"]["JSON"] < 10
        assert (there_ms >= seen["median"]).all() and fastest in send_by
        assert len(one_by_one) == 200
        assert all(np.allclose(a["OUTPUT0"], b["OUTPUT0"]) for a, b in zip(one_by_one, eight_at_once, strict=True))
        assert len(answers) == 100 and hottest == (events + hcal).max(axis=1).argmax()
        assert ecal.dtype == np.float32 and abs(ecal[0] - 48.08) < 0.01
        assert len(turns) == 6 and all(min(turn.values()) > 0 for turn in turns) and web_server.returncode == 0
    """,
    "04": """
        assert np.allclose(answer.as_numpy("softmax__0"), scores.probabilities[jets.truth(sample, "Hbb")][:1], atol=1e-4)
        assert len(scores) == len(jets.read("ak8")) == 50 * scores.requests
        higgs_curve, top_curve = (scores.roc(name, sample) for name in ("hbb_vs_qcd", "top_vs_qcd"))
        assert higgs_curve.auc >= 0.975 and top_curve.auc >= 0.96, (higgs_curve, top_curve)
        assert 0.3 < efficiency < 1 and abs(np.mean(of_qcd >= cut) - 0.01) < 0.003
        apart = np.abs(scores[:300].probabilities - onnx_scores.probabilities).max(axis=1)
        assert np.mean(apart <= 1e-5) >= 0.99 and apart.max() < 0.01, sorted(apart)[-9:]
        areas = {name: each.roc("hbb_vs_qcd", few).auc for name, each in tried.items()}
        assert len(by_event) == 200 and by_event.requests == len(np.unique(ak.to_numpy(sample.event[:200])))
        assert confusion.loc["QCD", "QCD"] > 50 and np.allclose(confusion.sum(axis=1), 100), confusion
        assert areas["careful"] >= 0.95 and max(areas["random"], areas["by length"]) < 0.9, areas
        assert min(same["careful"], same["put back"]) > 0.97 and max(same[name] for name in wrong) < 0.9, same
        ak4_areas = {name: ak4_scores.roc(name, narrow).auc for name in ak4_scores.discriminants}
        assert ak4_areas["b_vs_light"] == b_roc.auc >= 0.965, ak4_areas
        assert ak4_areas["b_vs_c"] >= 0.89 and ak4_areas["c_vs_light"] >= 0.81, ak4_areas
    """,
    "05": """
        assert plain.efficiency.value >= 0.975 and plain.purity.value >= 0.98, plain
        assert piled.efficiency.value >= 0.955, piled
        assert tracks.same_tracks(labels, by_hand)
        assert result.efficiency.value < best.efficiency.value and best.purity.value < result.purity.value, "0.99 and the chosen cut"
        assert 0.2 <= part < 1 and len(one) == len(two) == 5 and min(one + two) > 0 and 0 < low <= high
        assert len(lives) == 18 and (lives["parent"] == -1).sum() == 3 and (lives["model"] == "ExaTrk_gnn").sum() == 3
    """,
    "08": """
        from helpers.measuring.table import rows_of
        rows = rows_of([by_batch, by_load, alike, taus, *pair])
        assert by_batch[["model", "batch"]].values.tolist() == [[model, batch] for model in MODELS for batch in (1, 4, 16, 32)]
        assert all(row["source"] == "measured" and row["throughput_infer_per_s"] > 0 for row in rows)
        from pathlib import Path
        kept = Path(by_batch.attrs["path"])
        assert kept.is_file()
        assert all(verdict(at.loc[MODELS[0], batch], at.loc[MODELS[1], batch]).pairs in (0, 4) for batch in (1, 4, 16, 32))
        assert len(under_way) == len(by_load) and min(under_way) > 0 and machines > 0
        assert all(row["latency_p50_us"] <= row["latency_p95_us"] <= row["latency_p99_us"] for row in rows)
        assert tuple(by_load["concurrency"]) == (1, 2, 4, 8) and tuple(alike["batch"]) == tuple(taus["batch"]) == (1, 4, 16)
        assert set(taus["concurrency"]) == {4} and set(taus["inputs"]) == {"20_taus.json"}
    """,
    "06": """
        assert counted > 0 and [kind for _, kind in kinds].count("counter") >= 9
        assert len(answers) == 4
        assert load.sent > 0 and load.failed == 0
        assert mean_ms > 0 and total_us > 0 and all_requests > 50
        assert len(lives) == 8 and set(lives["parent"]) == {-1} and 0 <= share < 1
        names = ("request_success", "count", "exec_count")
        cached = {name: change.value(f"nv_inference_{name}", model="particlenet_AK4") for name in names}
        assert cached == {"request_success": 10, "count": 10, "exec_count": 1}, cached
        assert (change.value("nv_cache_num_hits"), change.value("nv_cache_num_misses")) == (9, 1)
        assert 1 <= mean_batch <= 12 and board.load.failed == 0
        assert not board.running and not board.load.running
    """,
    "07": """
        assert sorted(by_batch) == [1, 10, 100] and all(row["throughput_infer_per_s"] > 0 for row in by_batch.values())
        assert all(row["latency_p50_us"] <= row["latency_p95_us"] <= row["latency_p99_us"] for row in by_batch.values())
        assert price > 0 and gain > 0 and busy["concurrency"] == 8 and 0 <= share < 1, (gain, price, share)
        assert len(first_ms) == 20 and min(first_ms) > 0
        assert real["inputs"].endswith("_50_4.json") and pair[1]["inputs"].endswith("_20_4.json")
        assert status in (0, 2, 3) and rough["stable"] is ("not within 0.1%" not in rough["note"]), (status, rough["note"])
        assert "--shape pf_points:2,50" in ten["command"] and ten["server_version"] == "2.51.0"
    """,
    "09": """
        names = ["baseline", "baseline, again", "2 instances", "dynamic batching", "fp16", "int8_static"]
        assert [row["experiment"] for row in table.rows] == [*names, "challenge"]
        assert len(gains) == 6 and min(gains) > 0
        assert all(row["source"] == "measured" and row["throughput_infer_per_s"] > 0 for row in table.rows)
        assert table["baseline"]["executed_batch"] == table["2 instances"]["executed_batch"] == 1
        assert table["dynamic batching"]["executed_batch"] >= 1 and padded >= 1 and ragged >= 1, (padded, ragged)
        assert {row["model"] for row in costs} == {MODEL, *variants} and all(abs(row["auc_change"]) < 0.01 for row in costs)
        assert any("no effect here: it needs a GPU" in row.remark for row in view.rows)
        assert any(hasattr(shown, "best") and shown.rows for shown in Out.values()) and server.state() == "stopped"
        assert len({row["config"] for row in table.rows[:-1]}) == 5
    """,
    "10": """
        assert tuple(one["concurrency"]) == tuple(two["concurrency"]) == (1, 2, 4, 8)
        assert set(one["servers"]) == {1} and set(two["servers"]) == {2}
        assert saturated in (1, 2, 4, 8) and 0 <= in_queue < 8.5, (saturated, in_queue)
        assert servers == 2 and forty["request_rate_per_s"] == traffic.requests_per_s
        assert len(answers) == 40 and all(len(scores) == 20 for scores in answers)
        assert len(shares) == 2 and abs(sum(shares) - 1) < 1e-9 and min(shares) > 0, shares
        assert len(survived) == 100 and theirs.owned is False
        import numpy as np
        alone = np.concatenate([answer.probabilities for answer in answers])
        assert np.abs(np.concatenate([answer["softmax"] for answer in survived]) - alone).max() < 1e-4
        assert tagged.check() == {"jets": 4000, "lost": 0, "doubled": 0}
        assert np.abs(scores.probabilities[:800] - alone).max() < 1e-4
        assert tagged.tagged == 4000 and tagged.workers["jets"].sum() == 4000
    """,
    "11": """
        assert done.returncode == 0, done.stderr
        assert (folder / "1" / "model.onnx").read_bytes() != (ours / "jet_transformer.pt").read_bytes()
        assert 0 < difference < tolerance < 1e-4, (difference, tolerance)
        areas = {row["discriminant"]: row["auc"] for row in physics if row["model"] == MODEL}
        assert areas["b_vs_light"] >= 0.95 and areas["b_vs_c"] >= 0.85, areas
        names = [f"batch {batch}" for batch in (1, 4, 16, 64)] + ["ParticleNet, batch 1", "ParticleNet, batch 16", "2 instances"]
        assert [row["experiment"] for row in table.rows] == names
        assert all(row["source"] == "measured" and row["throughput_infer_per_s"] > 0 for row in table.rows)
        assert best in names and count in (1, 2)
        page = (folder / "MODEL_CARD.md").read_text()
        assert page == card and digest in page and purpose in page and f"count: {count}" in page and '"sv_mask"' in page
        assert all(name in page for name in names) and "b_vs_light" in page, page
    """,
}

# The same where the notebook ran with its blanks and without perf_analyzer: what it would have measured is a recorded row.
WITHOUT_THE_TOOL = {
    "07": """
        assert all(row["source"].startswith("recorded: ") for row in [ten, *by_batch.values(), real, rough])
        assert real["inputs"].endswith("_50_4.json") and status == 99
    """,
    "08": """
        assert all(row["source"].startswith("recorded: ") for table in (by_batch, by_load, alike, taus) for row in table.to_dict("records"))
    """,
}
