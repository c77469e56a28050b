"""The gap before each token over time, and when requests were sent: what a stall looks like to its readers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.declared.tables import TableSpec
from memgap.tables.columns import Columns
from memgap.tables.inputs import Inputs
from memgap.tables.requests import NAMED, events_of, measured_points, requests_of

MOST_GAPS, LARGEST = 3000, 300
"""So many gaps of a point are kept: the largest of them, and of the others every k-th in time."""
GAP_COLUMNS = ("event", "group", "request", "time_s", "gap_ms", "tokens", "prompt_tokens", "kept_every")
SENT, TOKEN = "sent", "token"
COLUMNS = (*NAMED, *GAP_COLUMNS)
KIND = "gaps"
TABLE = TableSpec(
    name="gaps",
    title="Gaps between tokens over time",
    of="sweep",
    plan="group",
    writes={"gaps": "results/tables/{group}.gaps.csv"},
)
READ = {
    "gaps": Columns("a table of gaps", COLUMNS, text=("sweep", "experiment", "key", "model", "event"), numbers=True)
}


def make(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Return the table of the sweep of the inputs' plan."""
    return {"gaps": gaps_table(inputs.plan, inputs.points)}


def gaps_table(plan: Mapping[str, Any], points: Path) -> pd.DataFrame:
    """Return the rows of every point that kept its tokens, see `gaps_of`."""
    tables = [
        found.assign(**named)
        for named, folder, _ in measured_points(plan, points, having=None)
        if len(found := gaps_of(folder))
    ]
    return READ[KIND].joined(tables)


def gaps_of(folder: Path) -> pd.DataFrame:
    """Return the rows of a stored point (`GAP_COLUMNS`); a recorded one has them as they were recorded.

    An event "token" has the time since the token before of its request (and choice) in ms; tokens that came together
    share it. Of many gaps the largest are there, and every `kept_every`-th of the others. An event "sent" is a request
    with its prompt's tokens; all of them are there. `group` is the number of the request's part or prefix.
    """
    if (folder / f"{KIND}.csv.gz").exists():
        return pd.read_csv(folder / f"{KIND}.csv.gz")
    if not (folder / "tokens.npz").exists() or not (folder / "requests.csv.gz").exists():
        return pd.DataFrame(columns=list(GAP_COLUMNS))
    requests = requests_of(folder)
    gaps = token_gaps(requests, events_of(folder)).sort_values("time_s", kind="stable", ignore_index=True)
    every = max(-(-len(gaps) // (MOST_GAPS - LARGEST)), 1)
    largest = gaps["gap_ms"].nlargest(LARGEST).index
    kept = gaps[(gaps.index % every == 0) | gaps.index.isin(largest)] if every > 1 else gaps
    groups = requests.set_index("index")["group"]
    tokens = kept.assign(event=TOKEN, group=kept["request"].map(groups), kept_every=every)
    sent = requests[requests["sent_s"].notna()]
    sends = pd.DataFrame(
        {
            "event": SENT,
            "group": sent["group"],
            "request": sent["index"],
            "time_s": sent["sent_s"],
            "prompt_tokens": sent["prompt_tokens_server"].fillna(sent["prompt_tokens_asked"]),
        }
    )
    return pd.concat([tokens, sends], ignore_index=True).reindex(columns=list(GAP_COLUMNS))


def token_gaps(requests: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """Return for each moment at which a completed request (or one of its choices) got tokens, but for the first:
    request, time_s, tokens, and the gap since the moment before by these tokens, in ms; grouped by request."""
    done = requests["index"][requests["status"] == "ok"]
    stream = [name for name in ("request", "choice") if name in events]
    own: pd.DataFrame = events[events["request"].isin(done)].groupby([*stream, "time_s"])["tokens"].sum().reset_index()
    gap_ms = own.groupby(stream)["time_s"].diff() * 1e3 / own["tokens"]
    whole = own.assign(gap_ms=gap_ms)[["request", "time_s", "tokens", "gap_ms"]]
    return whole[whole["gap_ms"].notna()].reset_index(drop=True)
