"""Tables and advice as web pages that need nothing but themselves, for the report and for reading in a browser."""

from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd

FIRST_COLUMNS = (
    "model",
    *("batch_cap", "repeat", "requests", "replicas"),
    "status",
    "flags",
    "total_throughput_tok_s",
    "itl_mean_ms",
    "ttft_mean_ms",
    "mean_running_reqs",
    "kv_cache_usage_max_fraction",
)
"""What a reader of a table looks for first; the other columns follow in their own order."""

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th { position: sticky; top: 0; background: #f3f3f3; }
td:first-child, th:first-child { text-align: left; }
.scroll { overflow-x: auto; }
pre { background: #f3f3f3; padding: .8rem; white-space: pre-wrap; }
.lead { font-size: 17px; }
"""


def table_page(table: pd.DataFrame) -> str:
    """Return a sweep's table as a page: one row a point, columns without any value left out."""
    sweep = str(table["sweep"].iloc[0]) if len(table) else "empty"
    filled = [column for column in table.columns if table[column].notna().any() and (table[column] != "").any()]
    first = [column for column in FIRST_COLUMNS if column in filled]
    shown = table[[*first, *(column for column in filled if column not in first)]]
    return _page(f"Points of the sweep {sweep}", f"<p>{len(table)} points.</p>{_table(shown)}")


def study_page(title: str, table: pd.DataFrame, source: str) -> str:
    """Return a table of the study as a page; `source` says where its numbers come from."""
    return _page(title, f"<p>{escape(source)}</p>{_table(table)}")


def advice_page(advice: Mapping[str, Any]) -> str:
    """Return an advice (see `memgap.advisor.report.advice_for`) as a page."""
    parts = [f'<p class="lead">{escape(str(advice["advice"]))}</p>']
    if "command" in advice:
        parts.append(f"<h2>To paste</h2><pre>{escape(advice['command'])}</pre>")
    if "stability" in advice:
        shares = pd.DataFrame(list(advice["stability"]["caps"]))
        shown = "" if shares.empty else _table(shares)
        parts.append(f"<h2>How sure</h2><p>{escape(str(advice['stability']['sentence']))}</p>{shown}")
    for title, name in (("Rule", "rule"), ("Expected, as measured", "expected"), ("Memory", "memory")):
        if name in advice:
            parts.append(f"<h2>{title}</h2>{_facts(advice[name])}")
    parts.append(f"<h2>Candidates</h2>{_table(pd.DataFrame(list(advice['candidates'])))}")
    parts += [f"<p>{escape(note)}</p>" for note in advice["notes"]]
    parts.append(f"<h2>Measured</h2>{_facts(advice['measured'])}")
    return _page(f"Advice for {advice['model']}", "".join(parts))


def verification_page(found: Mapping[str, Any]) -> str:
    """Return a verification (see `memgap.advisor.verify.verification`) as a page."""
    parts = [f'<p class="lead">{escape(str(found["sentence"]))}</p>']
    if "flags" in found:
        parts.append(f"<h2>Flags of the advised server</h2><pre>{escape(' '.join(found['flags']))}</pre>")
    if "predicted_and_measured" in found:
        rows = [{"what": name, **one} for name, one in found["predicted_and_measured"].items()]
        parts.append(f"<h2>Predicted and measured</h2>{_table(pd.DataFrame(rows))}")
        met = [
            {"check": name.replace("_", " "), "met": "yes" if kept else "no"} for name, kept in found["checks"].items()
        ]
        parts.append(f"<h2>Checks</h2>{_table(pd.DataFrame(met))}")
    return _page(f"The advice for {found['model']}, verified", "".join(parts))


def _facts(facts: Mapping[str, Any]) -> str:
    rows = [(name, _text(value)) for name, value in facts.items() if value is not None]
    return _table(pd.DataFrame(rows, columns=["what", "value"]))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _table(rows: pd.DataFrame) -> str:
    html = rows.astype(object).to_html(index=False, border=0, na_rep="", escape=True, float_format="{:.6g}".format)
    return f'<div class="scroll">{html}</div>'


def _page(title: str, body: str) -> str:
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1>{body}</body></html>\n'
