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
        assert report["instances"] == 1 and report["metrics_port"] == server.metrics.port
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
}
