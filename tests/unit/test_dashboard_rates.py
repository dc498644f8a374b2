"""From two readings of the metrics page to the dashboard's numbers, and from these to its table; no server needed."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from helpers.metrics import Difference, Sample, Snapshot, parse
from helpers.metrics.dashboard import QUANTITIES, Reading, page, sparkline

PAGE = """
# TYPE nv_inference_request_success counter
nv_inference_request_success{{model="jets",version="1"}} {requests}
nv_inference_request_success{{model="idle",version="1"}} 7
# TYPE nv_inference_count counter
nv_inference_count{{model="jets",version="1"}} {inferences}
nv_inference_count{{model="idle",version="1"}} 7
# TYPE nv_inference_exec_count counter
nv_inference_exec_count{{model="jets",version="1"}} {executions}
nv_inference_exec_count{{model="idle",version="1"}} 7
# TYPE nv_inference_queue_duration_us counter
nv_inference_queue_duration_us{{model="jets",version="1"}} {queue}
# TYPE nv_inference_compute_input_duration_us counter
nv_inference_compute_input_duration_us{{model="jets",version="1"}} {input}
# TYPE nv_inference_compute_infer_duration_us counter
nv_inference_compute_infer_duration_us{{model="jets",version="1"}} {infer}
# TYPE nv_inference_compute_output_duration_us counter
nv_inference_compute_output_duration_us{{model="jets",version="1"}} {output}
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{{model="jets",version="1"}} {pending}
nv_inference_pending_request_count{{model="idle",version="1"}} 0
"""


def _snapshot(time: float, **values: float) -> Snapshot:
    return Snapshot(time, tuple(parse(PAGE.format(**values))))


BEFORE = _snapshot(100, requests=10, inferences=80, executions=10, queue=1000, input=100, infer=9000, output=100, pending=9)
AFTER = _snapshot(102, requests=50, inferences=400, executions=20, queue=41000, input=4100, infer=209000, output=12100, pending=3)


def reading(steady_s: float, change: Difference) -> Reading:
    return steady_s, {row["model"]: row for row in change.requests}


def _shown(history: list[Reading]) -> ElementTree.Element:
    shown = page(history).replace("<br>", "<br/>").replace("<style>", "<style><![CDATA[").replace("</style>", "]]></style>")
    return ElementTree.fromstring(f"<x>{shown}</x>")


def _numbers(tree: ElementTree.Element) -> dict[str | None, list[str | None]]:
    return {row.get("data-model"): [cell.findtext("b") for cell in row.iter("td")] for row in tree.iter("tr") if row.get("data-model")}


def test_rates_are_differences_over_time_and_times_are_means_per_request() -> None:
    numbers = _numbers(_shown([reading(102, AFTER - BEFORE)]))
    assert numbers == {"idle": ["0", "0", "–", "–", "–", "0"], "jets": ["20", "160", "32", "1", "5.4", "3"]}


def test_versions_of_a_model_are_added() -> None:
    second = [Sample(one.metric, one.counter, {**one.labels, "version": "2"}, one.value) for one in AFTER.samples]
    both = Snapshot(102, (*AFTER.samples, *second))
    assert _numbers(_shown([reading(102, both - Snapshot(100, ()))]))["jets"][0] == "50"


def test_a_curve_goes_up_with_its_values_and_has_gaps_and_a_title() -> None:
    values = [0.0, 5.0, None, 10.0, None, 20.0, 2.0]
    drawing = ElementTree.fromstring(sparkline([step / 6 for step in range(7)], values, 20, "a < b"))
    assert drawing.get("role") == "img" and drawing.findtext("title") == "a < b"
    (path,) = (each.get("d", "") for each in drawing.iter("path"))
    pieces = [[point.removesuffix("h0").split() for point in piece.split("L")] for piece in path.split("M")[1:]]
    assert [len(piece) for piece in pieces] == [2, 1, 2], "three pieces; the single point in the middle is drawn, too"
    assert path.count("h0") == 3
    x, y = zip(*(map(float, point) for piece in pieces for point in piece), strict=True)
    assert list(x) == sorted(x) and x[0] == 2 and x[-1] == float(drawing.get("width", "")) - 2
    assert y[0] > y[4] > y[1] > y[2] > y[3] == 2, "upwards is less"


def _history() -> list[Reading]:
    def one(rate: float, batch: float | None) -> dict[str, float | None]:
        return dict(zip((column for column, *_ in QUANTITIES), (rate, 8 * rate, batch, 1500, 5400, 3), strict=True))

    earlier: list[Reading] = [(step / 2, {"jets": one(10 * step, 8), "gone": one(1, 1)}) for step in range(11)]
    return [*earlier, (5.5, {"jets": one(110, 8), "a<b": one(1, None)})]


def test_the_page_has_every_number_as_text_and_a_title_for_every_curve() -> None:
    tree = _shown(_history())
    assert _numbers(tree) == {"a<b": ["1", "8", "–", "1.5", "5.4", "3"], "jets": ["110", "880", "8", "1.5", "5.4", "3"]}
    titles = [title.text or "" for title in tree.iter("title")]
    assert len(titles) == 12, "a curve for each cell"
    assert "jets: requests, per s: now 110, on a scale from 0 to 110" in titles
    heads = ["".join(head.itertext()) for head in tree.iter("th") if head.get("scope") == "col"]
    assert heads[1] == "Requestsper scurve to 110", "the scale is written down, and both models share it"


def test_colour_is_never_needed() -> None:
    assert len(set(re.findall(r"#[0-9a-f]{6}", page(_history())))) == 1
