"""Plots, written as SVG by hand: lines over an axis that may be logarithmic, and bars in groups."""

import math
from html import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 46, 56
COLOURS = ("#3b6fb6", "#c8553d", "#4f9d69", "#8a63a8", "#b8892b", "#5b6770")


class Plot:
    """An area with axes; what is drawn is in the units of the data."""

    def __init__(self, title, across, up, x_range, y_max, log=False):
        self.parts, self.log = [], log
        self.x_range, self.y_max = x_range, y_max
        self._text(LEFT, 24, title, "start", 15)
        self._text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, across)
        self.parts.append(
            f'<text transform="translate(18 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle" '
            f'font-size="12">{escape(up)}</text>'
        )
        for value in ticks(y_max):
            y = self.y(value)
            self.parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            self._text(LEFT - 8, y + 4, short(value), "end", 11)

    def x(self, value):
        low, high = self.x_range
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = (value - low) / (high - low) if high > low else 0.5
        return LEFT + share * (WIDTH - RIGHT - LEFT)

    def y(self, value):
        return HEIGHT - BOTTOM - value / self.y_max * (HEIGHT - BOTTOM - TOP)

    def mark(self, value, text):
        """A place on the axis across."""
        self._text(self.x(value), HEIGHT - BOTTOM + 18, text, "middle", 11)

    def legend(self, names):
        for at, name in enumerate(names):
            y = TOP + 8 + at * 20
            self.parts.append(
                f'<rect x="{WIDTH - RIGHT + 14}" y="{y - 9}" width="12" height="12" fill="{colour(at)}"/>'
            )
            self._text(WIDTH - RIGHT + 32, y + 1, name, "start", 12)

    def line(self, at, points):
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour(at)}" stroke-width="2"/>')
        for x, y in points:
            self.parts.append(f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="3" fill="{colour(at)}"/>')

    def bar(self, at, left, right, value, low=None, high=None):
        """From `left` to `right` in pixels; with a whisker from low to high."""
        top, bottom = self.y(value), self.y(0)
        self.parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" '
            f'fill="{colour(at)}"/>'
        )
        if low is not None:
            middle = (left + right) / 2
            self.parts.append(
                f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{self.y(low):.1f}" y2="{self.y(high):.1f}" stroke="#222"/>'
            )

    def _text(self, x, y, text, anchor="middle", size=12):
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(str(text))}</text>'
        )

    def text(self):
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
        )
        return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *self.parts, "</svg>", ""])


def colour(at):
    return COLOURS[at % len(COLOURS)]


def ticks(most, wanted=5):
    """Round values from zero to `most`."""
    if most <= 0:
        return [0]
    rough = most / wanted
    scale = 10 ** math.floor(math.log10(rough))
    step = next(scale * factor for factor in (1, 2, 5, 10) if scale * factor >= rough)
    return [step * at for at in range(int(most / step + 1e-9) + 1)]


def short(value):
    """1200 to 1.2k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def lines(title, across, up, series, log=True):
    """`series` is a list of (name, [(x, y), …])."""
    points = [point for _, own in series for point in own]
    xs = sorted({x for x, _ in points})
    plot = Plot(title, across, up, (xs[0], xs[-1]), 1.1 * max(y for _, y in points), log)
    last = -100.0
    for x in xs:
        # Marks that would lie on one another are left out.
        if plot.x(x) - last > 40:
            plot.mark(x, short(x))
            last = plot.x(x)
    for at, (_, own) in enumerate(series):
        plot.line(at, sorted(own))
    plot.legend([name for name, _ in series])
    return plot.text()


def bars(title, up, groups, names):
    """`groups` is a list of (name, [(value, low, high), …]), one value for each of `names`."""
    most = max(high for _, values in groups for _, _, high in values)
    plot = Plot(title, "", up, (0, len(groups)), 1.1 * most)
    step = (WIDTH - RIGHT - LEFT) / len(groups)
    for at, (name, values) in enumerate(groups):
        plot.mark(at + 0.5, name)
        width = step * 0.8 / len(values)
        for number, (value, low, high) in enumerate(values):
            left = LEFT + step * (at + 0.1) + width * number
            plot.bar(number, left, left + width * 0.92, value, low, high)
    plot.legend(names)
    return plot.text()
