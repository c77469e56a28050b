"""Parts of a page that are made anew: what stands between two markers, which stay."""

from memgap.errors import UserError


def between(page: str, begin: str, end: str) -> str:
    """Return what stands between the markers; raises UserError where one is missing."""
    return _parts(page, begin, end)[1]


def replaced(page: str, begin: str, end: str, content: str) -> str:
    """Return the page with `content` between the markers; raises UserError where one is missing."""
    before, _, after = _parts(page, begin, end)
    return f"{before}{begin}{content}{end}{after}"


def _parts(page: str, begin: str, end: str) -> tuple[str, str, str]:
    before, has_begin, rest = page.partition(begin)
    content, has_end, after = rest.partition(end)
    if not (has_begin and has_end):
        raise UserError(f"the page lacks the lines {begin} and {end}, which the table goes between.")
    return before, content, after
