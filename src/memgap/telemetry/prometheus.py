"""Reads a Prometheus text page: every label set, exponents and all."""

from collections.abc import Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families

from memgap.errors import DAMAGE

Page = dict[str, list[tuple[dict[str, str], float]]]
"""Sample name -> list of (labels, value)."""


def parse_page(text: str) -> Page:
    """Return all samples of a metrics page.

    Raises ValueError where the text is not in the Prometheus format.
    """
    page: Page = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                page.setdefault(sample.name, []).append((dict(sample.labels), float(sample.value)))
    except DAMAGE as error:
        raise ValueError(f"not a page of metrics ({type(error).__name__}: {error})") from error
    return page


def merge_pages(pages: Sequence[Page]) -> Page:
    """Return the samples of several servers as those of one page, so that totals are over all of them."""
    merged: Page = {}
    for page in pages:
        for name, samples in page.items():
            merged.setdefault(name, []).extend(samples)
    return merged


def total(page: Page, name: str) -> float | None:
    """Return the sum of a metric over all its label sets, or None where the page has none of that name.

    Counters are found with and without their `_total` ending.
    """
    for candidate in (name, f"{name}_total"):
        if candidate in page:
            return sum(value for _, value in page[candidate])
    return None


def largest(page: Page, name: str) -> float | None:
    """Return the largest value of a metric over its label sets, or None where there is none."""
    return max((value for _, value in page[name]), default=None) if name in page else None


def labels_of(page: Page, name: str) -> Mapping[str, str]:
    """Return the labels of the first sample of a metric (an "info" metric), or an empty mapping."""
    samples = page.get(name)
    return samples[0][0] if samples else {}
