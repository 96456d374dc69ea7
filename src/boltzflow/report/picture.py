"""A picture that draws itself: on a figure of its own, on axes of the user's, or as the bytes of a PNG.

The style is set while a figure of its own is drawn; the user's own settings and backend stay as they are.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Figure
from numpy.typing import NDArray

from boltzflow.errors import InputError
from boltzflow.numerics.validation import shown

MAX_BYTES = 300_000
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "figure.constrained_layout.use": True,
}


class PictureFigure(Figure):
    """A matplotlib figure that a notebook shows by itself; `matplotlib.pyplot` does not know it."""

    def _repr_png_(self) -> bytes:
        return png_of(self)


@dataclass(frozen=True)
class Picture:
    """A picture that is not drawn yet: how its axes are laid out, and the function that draws on them.

    Args:
        shape: Rows and columns of axes.
        size: Width and height in inches.
        paint: Draws on an array of axes of this shape.
        sharing: Arguments of `Figure.subplots`, such as `{"sharex": True}`.
    """

    shape: tuple[int, int]
    size: tuple[float, float]
    paint: Callable[[NDArray[Any]], None]
    sharing: Mapping[str, Any] = field(default_factory=dict)

    def figure(self, axes: Any = None) -> Figure:
        """The picture on a figure of its own, or on `axes` of the user's, whose figure is returned.

        Raises:
            InputError: `axes` are not as many matplotlib axes as the picture has.
        """
        if axes is not None:
            given = _as_axes(axes, self.shape)
            self.paint(given)
            return given[0, 0].get_figure(root=True)
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            figure = PictureFigure(figsize=self.size)
            FigureCanvasAgg(figure)
            self.paint(figure.subplots(*self.shape, squeeze=False, **self.sharing))
        return figure

    def png(self) -> bytes:
        """The picture as a PNG of less than `MAX_BYTES`."""
        return png_of(self.figure())


def png_of(figure: Figure) -> bytes:
    """The PNG of a figure; the resolution falls until it is small enough."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        for dpi in (144, 110, 80, 50):
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=dpi)
            if buffer.tell() < MAX_BYTES:
                break
    return buffer.getvalue()


def _as_axes(axes: Any, shape: tuple[int, int]) -> NDArray[Any]:
    """The user's axes as an array of this shape."""
    given = np.asarray(axes, object)
    rows, columns = shape
    if given.size != rows * columns or not all(isinstance(ax, Axes) for ax in given.flat):
        wanted = "one matplotlib axes" if given.size and shape == (1, 1) else f"{rows * columns} matplotlib axes"
        got = f"{given.size}" if all(isinstance(ax, Axes) for ax in given.flat) else shown(axes)
        raise InputError(f"the picture needs {wanted}, as from plt.subplots({rows}, {columns})[1], got {got}")
    return given.reshape(shape)


def legend_above(axes: NDArray[Any], **style: Any) -> None:
    """The legend of the first panel above all panels; on a figure of the user's in that panel."""
    ax = axes[0, 0]
    handles = ax.get_legend_handles_labels()
    if isinstance(ax.figure, PictureFigure):
        ax.figure.legend(*handles, loc="outside upper center", **style)
    else:
        ax.legend(*handles)
