"""The claims of all labs in one table, and as a page to read."""

import pandas as pd

from memgap.declared.tables import TableSpec
from memgap.labs.names import CLAIM_COLUMNS, VERDICTS
from memgap.tables.forms import Content
from memgap.tables.inputs import Inputs

TABLE = TableSpec(
    name="labs",
    title="Verdicts of all labs",
    reads=("labs.claims",),
    when="labs",
    writes={"csv": "results/labs/claims.csv", "page": "results/labs/verdicts.md"},
    shown=("csv",),
    category="Labs",
    caption="""
The claims of all labs of the configuration with their verdicts: the effect over the blocks, its 95 % interval, the
claimed bound, where the numbers come from. What was not tested says why.
""",
)


def make(inputs: Inputs) -> dict[str, Content]:
    """Return the table and the page of all labs."""
    tables = [one for one in inputs.all("labs.claims") if len(one)]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(CLAIM_COLUMNS))
    return {"csv": table, "page": verdicts_page(table)}


def verdicts_page(table: pd.DataFrame) -> str:
    """Return the page: how many claims have each verdict, and a table of claims a lab."""
    counts = table["verdict"].value_counts()
    told = ", ".join(f"{counts.get(one, 0)} {one}" for one in VERDICTS)
    parts = ["# Verdicts", f"{len(table)} claims: {told}."]
    for lab, own in table.groupby("lab", sort=False):
        parts += [f"## Lab {lab}", claims_text(own)]
    return "\n\n".join(parts) + "\n"


def claims_text(table: pd.DataFrame) -> str:
    """Return claims as a Markdown table."""
    lines = [
        "| claim | verdict | effect | 95 % | claimed | blocks | source |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table.to_dict("records"):
        reason = f" ({row['reason']})" if isinstance(row["reason"], str) and row["reason"] else ""
        interval = "" if pd.isna(row["low"]) else f"{row['low']:.3g} to {row['high']:.3g}"
        effect = "" if pd.isna(row["effect"]) else f"{row['effect']:.3g}"
        source = row["source"] if isinstance(row["source"], str) else ""
        cells = (
            *(f"{row['id']} {row['sentence']}: {row['about']}", f"**{row['verdict']}**{reason}", effect, interval),
            *(row["claimed"], f"{row['blocks']:.0f}", source),
        )
        lines.append("| " + " | ".join(str(one).replace("|", "\\|") for one in cells) + " |")
    return "\n".join(lines)
