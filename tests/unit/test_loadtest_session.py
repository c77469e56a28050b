"""Load tests through sessions: the real Locust and the load generator against the simulated engine."""

import gzip
import json
import secrets
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from memgap.kinds.locust import locust_csv
from memgap.kinds.locust.comparison import comparison_table, definitions_table
from memgap.kinds.locust.tables import points_table, timeline_table
from memgap.study.plan import plan_of
from memgap.study.study import Study
from tests.support.loadtests import loadtest_config, measure, needs_locust

KEY = "sk-the-key-of-this-test"
pytestmark = needs_locust


def tables(study: Study, folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the plan and the table of points."""
    plan = plan_of(study, "group", "asking")
    return plan, points_table(plan, folder / "points")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """Measure one scenario with either client, and Locust without a stream."""
    folder = tmp_path_factory.mktemp("both")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_urlsafe", lambda *_: KEY)
        return measure(loadtest_config(stream=[True, False]), folder), folder


def test_either_client_sends_the_same_load(both: tuple[Study, Path]) -> None:
    _, points = tables(*both)
    points = points.drop_duplicates("key")
    assert points["status"].tolist() == ["ok"] * 3
    assert points["client"].tolist() == ["locust", "memgap", "locust"]
    for column, value in (("requests_completed", 8), ("output_tokens", 48), ("prompt_tokens", 96)):
        assert set(points[column]) == {value}, column
    assert points["server_start"].nunique() == 1
    assert (points["client_cpu_us_per_token"] > 0).all()


def test_a_streamed_point_has_the_first_token_that_locust_lacks(both: tuple[Study, Path]) -> None:
    _, points = tables(*both)
    streamed, plain = (
        points[(points["client"] == "locust") & (points["stream"] == one)].iloc[0] for one in (True, False)
    )
    assert 0 < streamed["ttft_mean_ms"] < streamed["e2e_mean_ms"]
    assert streamed["locust_ttft_mean_ms"] == pytest.approx(streamed["ttft_mean_ms"], abs=0.01)
    assert pd.isna(plain["ttft_mean_ms"]) and pd.isna(plain["locust_ttft_mean_ms"])
    assert plain["e2e_mean_ms"] > 0 and plain["locust_response_mean_ms"] > 0


def test_locusts_own_files_are_kept_as_they_are(both: tuple[Study, Path]) -> None:
    study, folder = both
    _, points = tables(study, folder)
    stored = folder / "points" / points.iloc[0]["key"]
    assert locust_csv.stats(stored, locust_csv.REQUESTS)["Request Count"] == 8
    assert locust_csv.stats(stored, locust_csv.TTFT)["Request Count"] == 8
    assert locust_csv.stats(stored, locust_csv.AGGREGATED)["Request Count"] == 16
    assert locust_csv.history(stored, locust_csv.REQUESTS, 0.0)[-1]["Total Request Count"] == 8
    point = json.loads((stored / "point.json").read_text())
    assert "--headless" in point["locust"]["command"] and point["locust"]["death"] is None


def test_the_definitions_say_where_locusts_timer_stops_and_what_aggregated_counts(both: tuple[Study, Path]) -> None:
    study, folder = both
    plan, points = tables(study, folder)
    told = definitions_table(plan, folder / "points")
    streamed = told[told["experiment"] == points["experiment"].iloc[0]].set_index("quantity")
    uncorrected = streamed.loc["response time where the Locust file does not correct it, mean, ms"]
    assert uncorrected["locust_says"] < uncorrected["otherwise"]
    doubled = streamed.loc["requests/s of the row Aggregated"]
    assert doubled["locust_says"] == pytest.approx(2 * doubled["otherwise"], rel=0.1)
    by_text = streamed.loc["TTFT by text, mean, ms"]
    assert by_text["difference"] == pytest.approx(0.0, abs=1e-6)


def test_the_comparison_pairs_the_points_of_one_server(both: tuple[Study, Path]) -> None:
    _, points = tables(*both)
    found = comparison_table(points)
    same = found[found["group"] == "same load"].dropna(subset=["difference"])
    assert len(same) and (same["difference"] == 0).all() and (same["pairs"] == 1).all()
    assert set(found["differs"]) == {"unknown"}
    moved = points.assign(server_start=points["server_start"].where(points["client"] == "locust", "another"))
    assert (comparison_table(moved)["pairs"] == 0).all()


def test_the_timeline_holds_every_request_and_the_servers_memory(both: tuple[Study, Path]) -> None:
    study, folder = both
    plan, _ = tables(study, folder)
    timeline = timeline_table(plan, folder / "points")
    for _, own in timeline.groupby("experiment"):
        done = (own["requests_per_s"] * own["bin_s"]).groupby(own["client"]).sum()
        assert done.to_dict() == pytest.approx({"locust": 8, "memgap": 8})
    assert timeline["rss_bytes"].max() > 0 and (timeline["failures_per_s"] == 0).all()


def test_the_api_key_is_in_no_file(both: tuple[Study, Path]) -> None:
    _, folder = both
    for path in (one for one in folder.rglob("*") if one.is_file()):
        data = path.read_bytes()
        assert KEY.encode() not in (gzip.decompress(data) if path.suffix == ".gz" else data), path


def test_failed_requests_are_results_of_the_same_kinds_for_either_client(tmp_path: Path) -> None:
    study = measure(loadtest_config({"fault": "http-500:3"}, users=1, requests_per_user=6, warmup_requests=0), tmp_path)
    _, points = tables(study, tmp_path)
    assert points["status"].tolist() == ["request_errors"] * 2
    assert points["requests_failed"].tolist() == [2, 2]
    seen = [pd.read_csv(tmp_path / "points" / key / "requests.csv.gz")["status"].tolist() for key in points["key"]]
    assert seen[0] == seen[1] == ["ok", "ok", "http_error"] * 2
    failures = (tmp_path / "points" / points["key"][0] / "locust_failures.csv").read_text()
    assert "HTTP 500" in failures


@pytest.mark.parametrize(
    ("fault", "status"),
    [("break-stream:2", "broken_stream"), ("malformed-event:2", "malformed"), ("short-output:2", "short")],
)
def test_locust_tells_broken_malformed_and_short_replies(tmp_path: Path, fault: str, status: str) -> None:
    config = loadtest_config({"fault": fault}, users=1, requests_per_user=2, warmup_requests=0, compare=False)
    study = measure(config, tmp_path)
    (key,) = study.points
    assert pd.read_csv(tmp_path / "points" / key / "requests.csv.gz")["status"].tolist() == ["ok", status]


def test_a_server_that_dies_is_a_recorded_result_and_locust_gives_up(tmp_path: Path) -> None:
    config = loadtest_config(
        {"fault": "die-after-requests:5"}, users=2, requests_per_user=30, warmup_requests=0, compare=False
    )
    study = measure(config, tmp_path)
    plan, points = tables(study, tmp_path)
    (point,) = points.to_dict("records")
    assert point["status"] == "crash" and "died under load" in point["error_message"]
    statuses = pd.read_csv(tmp_path / "points" / point["key"] / "requests.csv.gz")["status"].value_counts()
    assert statuses["ok"] >= 3 and statuses["refused"] >= 8 and statuses["not_sent"] > 0
    assert timeline_table(plan, tmp_path / "points")["failures_per_s"].max() > 0


def test_a_hanging_reply_is_a_timeout(tmp_path: Path) -> None:
    config = loadtest_config(
        {"fault": "stall:1:30"}, users=1, requests_per_user=2, warmup_requests=0, compare=False, request_timeout_s=1
    )
    study = measure(config, tmp_path)
    (key,) = study.points
    requests = pd.read_csv(tmp_path / "points" / key / "requests.csv.gz")
    assert "timeout" in set(requests["status"])
    assert "no whole reply within 1 s" in set(requests["error"])


def test_a_locust_that_ends_before_its_work_is_the_clients_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMGAP_LOCUST_PYTHON", sys.executable)  # which has no Locust
    study = measure(loadtest_config(compare=False, repeats=1), tmp_path)
    _, points = tables(study, tmp_path)
    (point,) = points.to_dict("records")
    assert point["status"] == "client_failed"
    assert "No module named locust" in point["error_message"]
