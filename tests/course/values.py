"""What must be true in the kernel when the solutions of a notebook have run; Python, by the notebook's number."""

from __future__ import annotations

VALUES = {
    "00": """
        assert result["OUTPUT0"].tolist() == [10.0 + i for i in range(16)]
        assert result["OUTPUT1"].tolist() == [i - 10.0 for i in range(16)]
        assert z_mass == 91
        rows = {row[0]: row for row in course_map().rows}
        assert rows["00"][3][0] == "## 2 of 2", rows["00"]
        assert len(rows) == 11 and len(syllabi().rows) == 3
    """,
    "01": """
        assert codes == {"live": 200, "ready": 200, "add_sub": 400}
        assert report["instances"] == 1 and report["metrics_port"] > 9000
        assert 0 < report["loading_s"] < 60
        assert second.state() == "stopped" and second.http.port > server.http.port
        assert revived is server and revived.pid != dead_pid
    """,
    "02": """
        assert found == {"instances": 1, "file": "model.py", "versions": 1}
        assert (models / "dimuon_mass" / "1" / "model.py").is_file()
        rows = {row.field: row.reported for row in compare(models / "add_sub", models / "add_sub", reported).rows}
        assert rows["default_model_filename"] == "model.py"
    """,
    "03": """
        assert np.array_equal(answer.as_numpy("OUTPUT0"), ecal + hcal)
        assert difference.as_numpy("OUTPUT0") is None and np.array_equal(difference.as_numpy("OUTPUT1"), ecal - hcal)
        assert len(one_by_one) == 200
        assert all(np.allclose(a["OUTPUT0"], b["OUTPUT0"]) for a, b in zip(one_by_one, eight_at_once, strict=True))
        assert len(answers) == 100 and hottest == (events + hcal).max(axis=1).argmax()
        assert ecal.dtype == np.float32 and abs(ecal[0] - 48.08) < 0.01
    """,
    "04": """
        assert np.allclose(over_http.as_numpy("softmax__0"), answer.as_numpy("softmax__0"), atol=1e-5)
        assert len(scores) == 2000 and scores.requests == 40
        higgs_curve, top_curve = (scores.roc(name, sample) for name in ("hbb_vs_qcd", "top_vs_qcd"))
        assert higgs_curve.auc >= 0.975 and top_curve.auc >= 0.96, (higgs_curve, top_curve)
        assert 0.3 < efficiency < 1 and abs(np.mean(of_qcd >= cut) - 0.01) < 0.003
        apart = np.abs(scores[:300].probabilities - onnx_scores.probabilities).max(axis=1)
        assert np.mean(apart <= 1e-5) >= 0.99 and apart.max() < 0.01, sorted(apart)[-9:]
        assert first_twenty["no warm-up"][0] > 3 * np.median(first_twenty["no warm-up"])
        areas = {name: each.roc("hbb_vs_qcd", few).auc for name, each in tried.items()}
        assert areas["right mask"] >= 0.95 > 0.9 > areas["random numbers"], areas
        assert (requests_made, inferences_made) == (len(np.unique(ak.to_numpy(sample.event[:200]))), 200)
        ak4_areas = {name: ak4_scores.roc(name, narrow).auc for name in ak4_scores.discriminants}
        assert ak4_areas["b_vs_light"] == b_roc.auc >= 0.965, ak4_areas
        assert ak4_areas["b_vs_c"] >= 0.89 and ak4_areas["c_vs_light"] >= 0.81, ak4_areas
    """,
    "05": """
        assert plain.efficiency.value >= 0.975 and plain.purity.value >= 0.98, plain
        assert piled.efficiency.value >= 0.955, piled
        assert tracks.same_tracks(labels, by_hand)
        assert scan[0.05].efficiency.value > scan[0.99].efficiency.value and scan[0.05].purity.value < scan[0.99].purity.value
        assert 0.2 < part < 1 and one.mean > 0 and two.mean > 0
    """,
    "08": """
        assert [(row["model"], row["batch"]) for row in by_batch] == [(model, batch) for model in MODELS for batch in (1, 4, 16, 32)]
        assert all(row["source"] == "measured" and row["throughput_infer_per_s"] > 0 for row in [*by_batch, *by_load, *alike, best])
        assert by_batch.path.is_file() and (by_batch.path.parent / "particlenet_AK4_PT" / "particlenet_AK4_PT_batch32.csv").is_file()
        assert all(verdict(at[model, 1], at[model, 16]).answer != "slower" for model in MODELS), by_batch
        assert all(at[model, 32]["latency_p50_us"] > 3 * at[model, 1]["latency_p50_us"] for model in MODELS)
        assert len(under_way) == 4 and sorted(abs(law / load - 1) for law, load in zip(under_way, (1, 2, 4, 8)))[2] < 0.25, under_way
        assert verdict(baseline, best).answer == "faster" and machines > 0
    """,
    "06": """
        assert counted > 0 and [kind for _, kind in kinds].count("counter") >= 9
        assert len(answers) == 4
        assert load.sent > 0 and load.failed == 0
        assert 0.5 < mean_ms < 500 and total_us / all_requests / 1000 > 1.2 * mean_ms, (total_us / all_requests / 1000, mean_ms)
        names = ("request_success", "count", "exec_count")
        cached = {name: change.value(f"nv_inference_{name}", model="particlenet_AK4") for name in names}
        assert cached == {"request_success": 10, "count": 10, "exec_count": 1}, cached
        assert (change.value("nv_cache_num_hits"), change.value("nv_cache_num_misses")) == (9, 1)
        assert 1.5 < mean_batch <= 12 and board.load.failed == 0
        assert not board.running and not board.load.running
    """,
    "07": """
        assert sorted(by_batch) == [1, 10, 100] and all(row["throughput_infer_per_s"] > 0 for row in by_batch.values())
        assert all(row["latency_p50_us"] <= row["latency_p95_us"] <= row["latency_p99_us"] for row in by_batch.values())
        assert price > 3 and gain > 0.3, (gain, price)
        assert busy["concurrency"] == 8 and 0.02 < share < 1 and busy["latency_p50_us"] > 1.5 * ten["latency_p50_us"], (share, busy)
        assert len(first_us) == 20 and first_us[0] > np.median(first_us), first_us
        assert real["inputs"].endswith("_50_4.json") and shorter["inputs"].endswith("_20_4.json")
        assert status == 2 and rough["stable"] is False and "not within 0.1%" in rough["note"], (status, rough["note"])
        assert "--shape pf_points:2,50" in ten["command"] and ten["server_version"] == "2.51.0"
    """,
    "09": """
        names = ["baseline", "2 instances", "2 instances × 2 threads", "dynamic batching", "TensorRT stanza", "fp16", "int8_static"]
        assert [row["experiment"] for row in table] == [*names, "response cache"]
        assert all(row["source"] == "measured" and row["throughput_infer_per_s"] > 0 for row in [*table, best])
        assert table["baseline"]["executed_batch"] == table["2 instances"]["executed_batch"] == 1
        assert table["dynamic batching"]["executed_batch"] > 1.2, table["dynamic batching"]
        assert padded > 1.2 > ragged >= 1 or padded > ragged >= 1, (padded, ragged)
        assert hits > 0.8 * lookups > 0
        assert table["response cache"]["throughput_infer_per_s"] > 1.5 * table["baseline"]["throughput_infer_per_s"]
        elsewhere = [round(table.elsewhere(table[name]).gain, 2) for name in ("2 instances", "dynamic batching", "TensorRT stanza")]
        assert elsewhere == [1.56, 1.79, 1.25]
        assert {row["model"] for row in costs} == {MODEL, *variants} and all(abs(row["auc_change"]) < 0.01 for row in costs)
        assert any("no effect here: it needs a GPU" in row.remark for row in view.rows)
        assert found.rows and server.state() == "stopped"
        assert verdict(table["baseline"], best).answer == "faster" and best["latency_p95_us"] < 20_000
    """,
    "10": """
        assert [row["concurrency"] for row in one] == [row["concurrency"] for row in two] == [1, 2, 4, 8]
        assert {row["servers"] for row in one} == {1} and {row["servers"] for row in two} == {2}
        assert one[-1]["queue_us"] > 3 * one[0]["queue_us"] and one[-1]["queue_us"] > two[-1]["queue_us"], (one, two)
        assert saturated in (1, 2, 4, 8) and 4 < in_queue < 8, (saturated, in_queue)
        assert servers == 2 and forty["request_rate_per_s"] == traffic.requests_per_s
        assert len(answers) == 40 and all(len(scores) == 20 for scores in answers)
        assert len(shares) == 2 and abs(sum(shares) - 1) < 1e-9 and min(shares) > 0.1, shares
        assert len(survived) == 100 and early < 90, early
        import numpy as np
        alone = np.concatenate([answer.probabilities for answer in answers])
        assert np.abs(np.concatenate([answer["softmax"] for answer in survived]) - alone).max() < 1e-4
        assert tagged.check() == {"jets": 4000, "lost": 0, "doubled": 0}
        assert np.abs(scores.probabilities[:800] - alone).max() < 1e-4
        assert tagged.tagged == 4000 and sum(row["jets"] for row in tagged.workers) == 4000
    """,
}
