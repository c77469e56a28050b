"""Tables I to III and the claims on kernels, phases and the host, from made-up tables."""

import dataclasses

import pandas as pd
import pytest

from memgap.tables import tab01, tab02, tab03
from memgap.tables.claim import FAILS, HOLDS, UNKNOWN
from memgap.tables.claims import Study, claims_table
from memgap.tables.forms import latex, markdown
from memgap.tables.offline_study import OfflineTables
from memgap.tables.points import as_table
from tests.support.offline_tables import offline_study

HOST = "Detokenising in the engine's process costs nothing: throughput with it over that without"


def judged(offline: OfflineTables) -> pd.DataFrame:
    """Return the claims on one model by a study alone."""
    found = claims_table(Study(as_table([]), as_table([]), {}, offline=offline))
    return found[found["model"] == "opt-1.3b"].set_index("claim")


def test_table_i_has_both_phases_at_max() -> None:
    found = tab01.table(offline_study()).set_index(["model", "phase"])
    assert set(found["batch"]) == {512}
    shares = found["time_share_fraction"].groupby("model").sum()
    assert list(shares) == pytest.approx([1.0, 1.0])
    assert found.loc[("opt-1.3b", "decode"), "dram_read_max_fraction"] == 0.8
    assert found.loc[("opt-1.3b", "decode"), "source"].startswith("nsys, sampled over time")
    assert found.loc[("llama-2-7b", "prefill"), "source"] == "", "no counters of its prefill"


def test_table_ii_has_peaks_shares_and_both_intensities() -> None:
    found = tab02.table(offline_study())
    assert list(found["batch"]) == [1, 512, 1, 512]
    assert list(found["share_of_dram_peak_fraction"]) == pytest.approx([0.408, 0.9384] * 2)
    assert list(found["intensity_flop_byte"]) == pytest.approx([1.1 / 1.02] * 4)
    assert (found["analytic_intensity_flop_byte"] < 1.01).all()


def test_table_iii_does_not_swap_the_caches() -> None:
    found = tab03.table(offline_study())
    assert list(found["l1_hit_fraction"]) == pytest.approx([0.12] * 4)
    assert list(found["l2_hit_fraction"]) == pytest.approx([0.02] * 4)


@pytest.mark.parametrize("table", [tab01.table, tab02.table, tab03.table])
def test_a_study_without_rows_gives_a_table_without_rows(table) -> None:  # type: ignore[no-untyped-def]
    found = table(OfflineTables())
    assert found.empty
    assert len(found.columns) > 5


def test_tables_as_markdown_and_latex() -> None:
    table = pd.DataFrame({"a_b": ["x & y|z", None], "share": [0.123456, float("nan")], "n": [512, 1]})
    page = markdown("T", table, "source")
    assert "| a_b | share | n |" in page
    assert "| x & y\\|z | 0.1235 | 512 |" in page
    assert "|  |  | 1 |" in page
    text = latex("T", table, "50 % of x")
    assert r"a\_b & share & n \\" in text
    assert r"x \& y|z & 0.1235 & 512 \\" in text
    assert r"\caption{T. 50 \% of x.}" in text
    assert r"\begin{tabular}{lrr}" in text


def test_claims_on_kernels_and_phases_are_judged_by_the_study() -> None:
    found = judged(offline_study())
    saturated = found.loc["DRAM read saturates in attention at MAX"]
    assert (saturated["measured"], saturated["verdict"]) == (pytest.approx(0.92), HOLDS)
    assert "60% (nsys" in saturated["because"]
    assert found.loc["Compute idles meanwhile: tensor cores in attention at MAX", "verdict"] == HOLDS
    assert found.loc["Attention's intensity stays flat from batch 1 to MAX", "measured"] == pytest.approx(1.0)
    grown = found.loc["Attention's share of a decode step grows from batch 1 to MAX"]
    assert "7% of a step at batch 1, 76% at 512" in grown["because"]
    waits = found.loc["Over half of attention's warp latency waits for memory at MAX"]
    assert waits["verdict"] == FAILS, "half is not over half"
    assert "long scoreboard 50%, wait 20%, barrier 15%" in waits["because"]


def test_the_hosts_part_is_named() -> None:
    host = judged(offline_study()).loc[HOST]
    assert host["verdict"] == FAILS
    assert host["measured"] < 0.5
    assert "at batch 512" in host["because"]
    tables = offline_study()
    plain = tables.points[tables.points["detokenize"] == "no"]
    assert judged(dataclasses.replace(tables, points=plain)).loc[HOST, "verdict"] == UNKNOWN


def test_without_a_study_the_claims_are_not_measured() -> None:
    server = {"model": "opt-1.3b", "batch_cap": 1, "replicas": 1, "status": "ok", "flags": ""}
    found = claims_table(Study(as_table([server]), as_table([]), {})).set_index("claim")
    offline = found.loc["DRAM read saturates in attention at MAX":]  # type: ignore[misc]
    assert len(offline) == 8
    assert set(offline["verdict"]) == {UNKNOWN}
    assert offline["measured"].isna().all()
