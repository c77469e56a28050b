"""The comparison of Locust with the load generator as a page."""

import pandas as pd

from memgap.tables.pages import study_page

DROPPED = ["session", "interval_source"]


def comparison_page(name: str, points: pd.DataFrame, comparison: pd.DataFrame, definitions: pd.DataFrame) -> str:
    """Return both tables as one page that needs nothing but itself."""
    failed = points[points["status"] != "ok"]
    sources = ", ".join(map(str, comparison["interval_source"].dropna().unique())) or "none, there are too few pairs"
    doubted = int((points["verdict"] == "invalid").sum())
    source = (
        f"{len(points)} runs, {len(failed)} of them failed, {doubted} with the verdict invalid. "
        f"A difference is Locust less load generator over the pairs "
        f"of a repeat on one server; its interval: {sources}."
    )
    told = definitions.drop(columns=["session"]).rename(columns={"quantity": "metric", "why": "what_to_know"})
    told = told.assign(group="what Locust says of its own run (locust), and otherwise (memgap)")
    told = told.rename(columns={"locust_says": "locust", "otherwise": "memgap", "runs": "pairs"})
    joined = pd.concat([comparison.drop(columns=DROPPED), told], ignore_index=True)
    return study_page(f"Load test {name}: Locust and the load generator", joined, source)
