"""The learning curves of groups of runs as a picture: the mean over the seeds, and the lowest and highest of them."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from u2pl.errors import UserError
from u2pl.reporting import charts
from u2pl.reporting.axes import miou_span
from u2pl.reporting.run_groups import Comparison
from u2pl.runs.epochs import shown_epoch

_INK = "#222222"


def write(found: Comparison, path: Path) -> None:
    """Write the curves of all groups as a PNG.

    Raises:
        UserError: no run has recorded an epoch.
    """
    curves = [
        charts.curve(group.label, style, [values.rename(index=shown_epoch) for values in group.shown])
        for style, group in enumerate(found.groups)
        if group.curves
    ]
    if not curves:
        raise UserError(
            "None of the runs has recorded an epoch, so there is no curve to draw. Leave --out out."
        )
    figure = Figure(figsize=(6, 3.8 + 0.22 * len(curves)), layout="constrained", dpi=150)
    axes = figure.subplots()
    title = found.groups[0].any_record["dataset"]
    sds = (float(pd.Series(group.mious, dtype="float64").std()) for group in found.groups)
    charts.draw(
        axes, charts.Panel(title, charts.MIOU, tuple(curves), miou_span(charts.extremes(curves), sds)), _INK
    )
    # Names are long: one below the other, all of them fit.
    figure.legend(loc="outside lower center", ncols=1, frameon=False, fontsize=8, labelcolor=_INK)
    charts.save(figure, path)
