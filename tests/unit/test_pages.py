"""Pages of tables and advice show what there is, and nothing in them is taken for markup."""

from memgap.tables.pages import advice_page, table_page
from memgap.tables.points import as_table


def test_a_table_page_has_a_row_a_point_and_only_filled_columns() -> None:
    rows = [
        {"sweep": "s", "model": "m", "batch_cap": 1, "status": "ok", "itl_mean_ms": 2.5},
        {"sweep": "s", "model": "m", "batch_cap": 2, "status": "crash", "error_message": "<script>alert(1)</script>"},
    ]
    page = table_page(as_table(rows))
    assert page.count("<tr") == 3
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "itl_mean_ms" in page
    assert "energy_j" not in page
    assert "0 points" in table_page(as_table([]))


def test_an_advice_page_leads_with_the_sentence_and_escapes_it() -> None:
    advice = {
        "model": "m",
        "advice": "Run with a cap of 4 & be happy",
        "command": "vllm serve MODEL --x '<a>'",
        "rule": {"epsilon": 0.1},
        "candidates": [{"batch_cap": 4, "feasible": True}],
        "notes": ["a note"],
        "measured": {"points": 2, "device": ["cpu"]},
    }
    page = advice_page(advice)
    assert "cap of 4 &amp; be happy" in page
    assert "&lt;a&gt;" in page
    assert page.index("be happy") < page.index("To paste") < page.index("Candidates") < page.index("Measured")
    assert "To paste" not in advice_page({**{k: v for k, v in advice.items() if k != "command"}, "b_opt": None})
