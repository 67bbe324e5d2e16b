"""Draw the picture of the landing page: `python docs/picture.py`.

Colours are those of the page around it (`currentColor`, and the theme's), so that it suits light, dark and grey.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

WIDTH, HEIGHT = 700, 430
PANEL, GAP, LEFT, TOP = 150, 22, 17, 128
ACCENT = "var(--pst-color-primary, #176de8)"
# Of each round drawn: its number, amplitude and phase of its task, how far adapting gets, and the datapoints seen.
ROUNDS = ((1, 0.9, 0.3, 0.3, 11), (2, 0.6, 2.0, 0.62, 8), (10, 0.8, 3.6, 0.93, 5), (40, 0.7, 0.9, 0.99, 3))
NEEDED = (40, 26, 11, 4)


def text(x: float, y: float, what: str, size: int = 17, anchor: str = "middle", more: str = "") -> str:
    """A line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" {more}>{what}</text>'


def curve(left: float, top: float, height: Callable[[float], float], style: str) -> str:
    """A function over a panel; `height` maps [0, 1] to [-1, 1]."""
    points = []
    for i in range(61):
        x = i / 60
        y = height(x)
        points.append(f"{left + 8 + x * (PANEL - 16):.1f},{top + 55 - 42 * y:.1f}")
    return f'<polyline points="{" ".join(points)}" fill="none" {style}/>'


def panel(i: int) -> list[str]:
    """One round: where it begins, its task, what adapting makes of it, and the datapoints that it takes."""
    number, amplitude, phase, adapted, seen = ROUNDS[i]
    left = LEFT + i * (PANEL + GAP)
    middle = left + PANEL / 2
    drawn = [text(middle, 24, f"task {number}", 19, more='font-weight="600"')]

    def task(x: float) -> float:
        return amplitude * math.sin(2 * math.pi * x + phase)

    def before(x: float) -> float:  # what is common to all tasks, more and more of it
        flat = 0.15 * math.cos(3 * x + 1)
        return (1 - 0.25 * i) * flat + 0.25 * i * 0.35 * math.sin(2 * math.pi * x + 1.6)

    def after(x: float) -> float:
        bump = 0.5 * (1 - adapted) * math.sin(11 * x + i)
        return adapted * task(x) + (1 - adapted) * before(x) + bump

    drawn.append(
        f'<rect x="{left}" y="{TOP - 90}" width="{PANEL}" height="110" rx="8" fill="none" stroke="currentColor" '
        'stroke-opacity="0.35"/>'
    )
    drawn.append(curve(left, TOP - 90, before, 'stroke="currentColor" stroke-width="2" stroke-dasharray="5 5"'))
    drawn.append(curve(left, TOP - 90, after, f'stroke="{ACCENT}" stroke-width="3.5"'))
    for k in range(seen):
        x = (k + 0.5) / seen
        drawn.append(
            f'<circle cx="{left + 8 + x * (PANEL - 16):.1f}" cy="{TOP - 35 - 42 * task(x):.1f}" r="4.5" '
            'fill="currentColor"/>'
        )
    # What was learned goes on to the next task.
    y = TOP + 72
    name = f'w<tspan dy="4" font-size="13">{number}</tspan>'
    drawn.append(f'<path d="M {middle} {y - 19} V {TOP + 28}" stroke="currentColor" stroke-width="2" {ARROW}/>')
    drawn.append(f'<circle cx="{middle}" cy="{y}" r="19" fill="none" stroke="{ACCENT}" stroke-width="2.5"/>')
    drawn.append(text(middle, y + 4, name, 18, more='font-style="italic"'))
    if i < len(ROUNDS) - 1:
        dashes = "" if ROUNDS[i + 1][0] == number + 1 else 'stroke-dasharray="3 6"'
        end = middle + PANEL + GAP - 26
        drawn.append(f'<path d="M {middle + 22} {y} H {end}" stroke="{ACCENT}" stroke-width="2.5" {dashes} {ARROW}/>')
    # Datapoints until it is good.
    tall = 3.2 * NEEDED[i]
    base = HEIGHT - 42
    drawn.append(
        f'<rect x="{middle - 24}" y="{base - tall:.1f}" width="48" height="{tall:.1f}" rx="3" fill="{ACCENT}" '
        'fill-opacity="0.85"/>'
    )
    drawn.append(text(middle, base - tall - 7, str(NEEDED[i]), 18, more='font-weight="600"'))
    return drawn


ARROW = 'fill="none" marker-end="url(#tip)"'


def picture() -> str:
    """The whole drawing."""
    base = HEIGHT - 42
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" fill="currentColor" '
        'font-family="system-ui, sans-serif">',
        "<title>Online meta-learning: with every task met, the next one needs fewer datapoints</title>",
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="6" markerHeight="6" '
        'orient="auto-start-reverse"><path d="M 0 0 L 10 5 L 0 10 z" fill="currentColor"/></marker></defs>',
        *(line for i in range(len(ROUNDS)) for line in panel(i)),
        f'<path d="M {LEFT} {base} H {WIDTH - LEFT}" stroke="currentColor" stroke-opacity="0.5"/>',
        text(WIDTH / 2, HEIGHT - 14, "datapoints until a task is learned: fewer with every task met", 19),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    path = Path(__file__).parent / "_static" / "online-meta-learning.svg"
    path.write_text(picture(), encoding="utf-8")
