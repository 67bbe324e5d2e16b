"""How figures look on paper: their size, the size of their text, grey in place of colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.text import Text

from metaleader.errors import UserError

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of red, green and blue (Rec. 709)
NARROW = 7.0  # inches, below which four learners' names do not fit in a line
COLOURS = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")


@dataclass(frozen=True)
class Look:
    """How a figure looks; what it shows is the same. Figures are drawn at 10 points, each in a size of its own.

    >>> Look(size=(3.3, 2.5), font=8, grey=True)
    Look(size=(3.3, 2.5), font=8, grey=True)

    Attributes:
        size: width and height in inches; None: the figure's own.
        font: size of the text in points, titles in proportion; None: 10.
        grey: colours as the shades of grey that a black and white print gives; shapes and dashes tell lines apart.

    Raises:
        UserError: a size is not positive.
    """

    size: tuple[float, float] | None = None
    font: float | None = None
    grey: bool = False

    def __post_init__(self) -> None:
        if any(number <= 0 for number in (*(self.size or ()), *((self.font,) if self.font is not None else ()))):
            raise UserError(f"sizes of figures and text must be above 0, got size={self.size}, font={self.font}")

    def of(self, figure: Figure) -> Figure:
        """The figure, which is changed."""
        if self.size is not None:
            figure.set_size_inches(*self.size)
            for legend in figure.legends if self.size[0] < NARROW else ():
                legend.set_ncols(2)
        if self.font is not None:
            for text in figure.findobj(Text):
                text.set_fontsize(float(text.get_fontsize()) * self.font / 10)
        if self.grey:
            for artist in figure.findobj():
                _make_grey(artist)
        return figure


def _make_grey(artist: Artist) -> None:
    if isinstance(artist, ScalarMappable) and artist.get_array() is not None:
        shades = _grey(artist.get_cmap()(np.linspace(0, 1, 256)))
        artist.set_cmap(ListedColormap(shades))
        return
    for name in COLOURS:
        get, put = (getattr(artist, f"{verb}_{name}", None) for verb in ("get", "set"))
        if get is None or put is None:
            continue
        colour = get()
        if colour is None or (isinstance(colour, str) and colour in ("none", "auto")):
            continue
        shades = _grey(to_rgba_array(colour))
        if len(shades):
            put(shades if len(shades) > 1 else tuple(shades[0]))


def _grey(colours: Any) -> Any:
    """RGBA of the same luminance without colour; gamma is left alone, as printers do."""
    found = np.array(colours, float)
    found[:, :3] = (found[:, :3] @ LUMINANCE)[:, None]
    return found


FORMATS = ("png", "svg", "pdf")
