"""Reads a Prometheus text page: every label set, exponents and all."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families

from memgap.errors import DAMAGE

Page = dict[str, list[tuple[dict[str, str], float]]]
"""Sample name -> list of (labels, value). A value that is NaN was on the page, but is no finite number."""

_NAME = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)(?=[\s{])")


def parse_page(text: str) -> Page:
    """Return all samples of a metrics page.

    A value that is no finite number is NaN here, and so is that of a line that cannot be read but has a metric's name:
    one bad sample does not take the page along, and no sum is made without it either. Raises ValueError where no line
    can be read.
    """
    try:
        page = _page(_samples(text.removeprefix("\ufeff")))
    except DAMAGE:
        page = _page(sample for line in text.splitlines() for sample in _line_samples(line))
        if all(math.isnan(value) for samples in page.values() for _, value in samples):
            raise ValueError("not a page of metrics: no line of it can be read") from None
    return page


def _page(samples: Iterator[tuple[str, dict[str, str], float]]) -> Page:
    page: Page = {}
    for name, labels, value in samples:
        page.setdefault(name, []).append((labels, value if math.isfinite(value) else math.nan))
    return page


def _samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, dict(sample.labels), float(sample.value)


def _line_samples(line: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield the sample of one line; NaN for a line that has a name and nothing else that can be read."""
    if not line.strip() or line.lstrip().startswith("#"):
        return
    try:
        yield from list(_samples(line + "\n"))
    except DAMAGE:
        if named := _NAME.match(line):
            yield named[1], {}, math.nan


def merge_pages(pages: Sequence[Page]) -> Page:
    """Return the samples of several servers as those of one page, so that totals are over all of them."""
    merged: Page = {}
    for page in pages:
        for name, samples in page.items():
            merged.setdefault(name, []).extend(samples)
    return merged


def total(page: Page, name: str) -> float | None:
    """Return the sum of a metric over all its label sets, or None where the page has none of that name.

    Counters are found with and without their `_total` ending. NaN where one of the values is no finite number.
    """
    for candidate in (name, f"{name}_total"):
        if candidate in page:
            return sum(value for _, value in page[candidate])
    return None


def rise(before: Page, after: Page, name: str) -> float | None:
    """Return by how much a counter rose between two pages, None where the later one has none of that name, or where it
    was set back or is no finite number.

    It counts from 0 where it was not there before: engines show some with their first event.
    """
    now = total(after, name)
    change = math.nan if now is None else now - (total(before, name) or 0.0)
    return change if change >= 0 else None


def largest(page: Page, name: str) -> float | None:
    """Return the largest value of a metric over its label sets, or None where there is none.

    NaN where one of the values is no finite number.
    """
    values = [value for _, value in page.get(name, [])]
    if any(math.isnan(value) for value in values):
        return math.nan
    return max(values, default=None)


def labels_of(page: Page, name: str) -> Mapping[str, str]:
    """Return the labels of the first sample of a metric (an "info" metric), or an empty mapping."""
    return next((labels for labels, _ in page.get(name, []) if labels), {})
