"""What figures show."""

from matplotlib.figure import Figure


def texts(figure: Figure) -> str:
    """Return all text in a figure."""
    import matplotlib.text

    found = [one.get_text() for one in figure.findobj(matplotlib.text.Text)]  # type: ignore[attr-defined]
    return " ".join(" ".join(found).split())
