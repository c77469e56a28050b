"""Bars of why an attention kernel's warps wait, in shares of the warp latency, beside the paper's one number."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes

from memgap.figures.counters import PAPERS_REASON, stall_shares
from memgap.figures.style import palette

NAMED = 7
"""That many reasons, the largest over all bars, have a colour of their own."""


def stall_rows(kernels: pd.DataFrame, head: Mapping[str, object]) -> list[dict[str, object]]:
    """Return one row a stall reason of a group of kernels, each with `head`; none where nothing was counted."""
    return [
        {**head, "kernels": len(kernels), "reason": reason, "share_fraction": share}
        for reason, share in stall_shares(kernels).items()
    ]


def named_reasons(data: pd.DataFrame) -> list[str]:
    """Return the reasons that are drawn by name: the paper's first, then the others from the largest sum on."""
    sums = data.groupby("reason", sort=False)["share_fraction"].sum().sort_values(ascending=False)
    others = [str(reason) for reason in sums.index if reason not in (PAPERS_REASON, "unnamed")]
    return [PAPERS_REASON, *others][:NAMED]


def draw_stalls(axes: Axes, bars: Sequence[pd.DataFrame], labels: Sequence[str], reasons: Sequence[str]) -> None:
    """Draw one stacked bar a table of `stall_rows`, in percent, with the paper's number written beside its part."""
    bottoms = [0.0] * len(bars)
    colours = [*palette(len(reasons)), (0.85, 0.85, 0.85)]
    for reason, colour in zip((*reasons, "other reasons"), colours, strict=True):
        heights = [
            100 * float(own[own["reason"] == reason]["share_fraction"].sum())
            if reason in reasons
            else 100 * float(own[~own["reason"].isin(reasons)]["share_fraction"].sum())
            for own in bars
        ]
        axes.bar(
            range(len(bars)),
            heights,
            bottom=bottoms,
            width=0.75,
            color=colour,
            linewidth=0,
            label=reason.replace("_", " "),
        )
        if reason == PAPERS_REASON:
            for place, height in enumerate(heights):
                axes.annotate(
                    f"{height:.0f}",
                    (place, height / 2),
                    ha="center",
                    va="center",
                    color="white",
                    fontsize="x-small",
                )
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axes.set_xticks(range(len(bars)), labels, fontsize=5.5)
    axes.set_ylim(0, 100)
    axes.grid(visible=False)


def legend_beside(panels: Sequence[Axes]) -> None:
    """Name everything that any panel draws, once, to the right of the last one."""
    named = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if named:
        panels[-1].legend(named.values(), named.keys(), fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5))
