"""The page to explore: the answer first, then every number behind it, moved by the reader's own bound."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.declared.tables import TableSpec
from memgap.explore.numbers import BEND, METRICS, as_json, model_numbers
from memgap.tables.claim import FAILS, HOLDS, SIZE, UNKNOWN
from memgap.tables.claims import Study, claims_table
from memgap.tables.inputs import Inputs
from memgap.tables.offline_study import offline_of
from memgap.tables.provenance import provenance_line

FOLDER = Path(__file__).parent
TABLE = TableSpec(
    name="explore",
    title="The page to explore",
    reads=(
        "sweep.points",
        "sweep.advice",
        "sweep.verified",
        "others?.points",
        "twins?.twin",
        "replication?.points",
        "study?.offline",
        "study?.classes",
        "study?.counters",
        "study?.gpu",
    ),
    plan="explore",
    writes={"page": "results/explore.html"},
    shown=("page",),
    target="explore",
    category="Start here",
    settings={
        "sweep": "Name of the sweep over batch caps that the page answers for.",
        "replication": "Sweep with replicas, for what holds of the paper.",
        "study": "Offline study, for what holds of the paper.",
    },
    caption="""
One file that needs nothing but a browser: where the throughput bends, what is advised and how sure that is, what holds
of the paper. Another bound on the latency moves B_opt, the freed memory, the replicas and the cost at once, by the
advisor's rule and from measured points. See docs/explore.md.
""",
)


def make(inputs: Inputs) -> dict[str, str]:
    """Return the page."""
    tables = [inputs["sweep.points"], *inputs.all("others.points")]
    twins = inputs.by_model("twins.twin")
    shown = [
        model_numbers(table, model, inputs.plan, twins[model]["rows"] if model in twins else None)
        for table in tables
        for model in dict.fromkeys(table["model"].dropna())
    ]
    settings = inputs.plan
    numbers = {
        "models": shown,
        "metrics": METRICS,
        "rule": {name: settings[name] for name in ("latency", "slo", "epsilon", "memory_margin")},
        "limit_fraction": settings["memory_limit_fraction"],
    }
    claims = _claims_table(inputs)
    parts = {
        "style": _text("page.css"),
        "answer": _answer(shown, inputs.by_model("sweep.verified"), claims),
        "claims": _claims(claims),
        "provenance": escape("; ".join(provenance_line(table) for table in tables)),
        "bend": f"{BEND:.0%}",
        "runtime": _runtime(),
        "numbers": as_json(numbers),
        "rule": _text("rule.js"),
        "script": _text("page.js"),
    }
    return {"page": _filled(_text("page.html"), parts)}


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """Return the template with each {{name}} replaced, none of them inside another part."""
    begin, *rest = template.split("{{")
    return begin + "".join(parts[name] + text for name, _, text in (one.partition("}}") for one in rest))


def _runtime() -> str:
    """Return Vega, Vega-Lite and Vega-Embed (BSD 3-Clause) as one script that sets `vegaEmbed`."""
    import vl_convert  # here: it starts threads, which a warm process must not have

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def _answer(shown: Sequence[Mapping[str, Any]], verified: Mapping[str, Mapping[str, Any]], claims: pd.DataFrame) -> str:
    """Return the answer of all models in a sentence, then that of each."""
    advised = [one["advice"]["b_opt"] for one in shown if one["advice"]["b_opt"] is not None]
    bends = [one["bend"] for one in shown if one["bend"] is not None]
    sure = [one["advice"]["stability"]["same_fraction"] for one in shown]
    known = [100 * one for one in sure if one is not None]
    said = [
        f"Throughput bends at a batch cap of {_span(bends)}" if bends else "Throughput bends at no measured cap",
        f"what is advised is a cap of {_span(advised)}" if advised else "no cap can be advised",
        f"the advice is the same in {_span(known)} % of draws" if known else "how sure that is cannot be said",
    ]
    lead = f"{'; '.join(said)}. {_held(claims)}"
    each = "".join(_answer_of(one, verified.get(one["model"], {})) for one in shown)
    return f'<p class="lead"><strong>{escape(lead)}</strong></p><ul class="answer">{each}</ul>'


def _answer_of(one: Mapping[str, Any], verified: Mapping[str, Any]) -> str:
    advice, memory = one["advice"], one["advice"].get("memory", {})
    said = [str(advice["advice"])]
    if memory.get("kv_freed_bytes") is not None:
        said.append(
            f"Frees {memory['kv_freed_bytes'] / 1e9:.3g} of {memory['kv_pool_bytes'] / 1e9:.3g} GB of KV cache."
        )
    said.append(str(advice["stability"]["sentence"]))
    if verified.get("holds") is not None:
        said.append(f"A run of the advised server {'did' if verified['holds'] else 'did not do'} as predicted.")
    return f"<li><strong>{escape(one['model'])} on {escape(one['gpu'])}.</strong> {escape(' '.join(said))}</li>"


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"


def _claims_table(inputs: Inputs) -> pd.DataFrame:
    study = Study(
        inputs["sweep.points"],
        inputs["replication.points"],
        inputs.by_model("sweep.advice"),
        inputs.by_model("sweep.verified"),
        offline_of(inputs),
    )
    table = claims_table(study)
    return table[table["paper"].notna()]


def _held(claims: pd.DataFrame) -> str:
    """Return what holds of the paper in a sentence."""
    if claims.empty:
        return "The paper measured other models than this study, so nothing here can be held against it."
    words = {HOLDS: "hold", SIZE: "hold and differ in size", FAILS: "do not hold", UNKNOWN: "were not measured"}
    counts = claims["verdict"].value_counts()
    said = ", ".join(f"{counts[verdict]} {word}" for verdict, word in words.items() if verdict in counts)
    return f"Of {len(claims)} figures of the paper {said}."


def _claims(claims: pd.DataFrame) -> str:
    head = "".join(f"<th scope=col>{name}</th>" for name in ("claim", "model", "paper", "measured", "verdict"))
    rows = "".join(_claim(row) for _, row in claims.iterrows())
    every = (
        '<details><summary>Every claim</summary><div class="scroll" tabindex="0" role="region" aria-label="claims">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )
    return f"<p>{escape(_held(claims))}</p>{every if rows else ''}"


def _claim(row: "pd.Series[Any]") -> str:
    measured = "" if pd.isna(row["measured"]) else f"{row['measured']:.4g} {row['unit']}"
    if not pd.isna(row["low"]):
        measured += f" ({row['low']:.4g} to {row['high']:.4g})"
    cells = (row["claim"], row["model"], f"{row['paper']:.4g} {row['unit']}", measured, row["verdict"])
    return "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"
