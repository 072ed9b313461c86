"""The figures as a picture: bars of what was delivered at saturation, beside curves of what came late. Plain SVG."""

from __future__ import annotations

from html import escape
from math import log10

from tests.bench.peers import OURS, PEERS
from tests.bench.report import Figures

_COLOURS = dict(
    zip(
        [peer.name for peer in PEERS], ["#0b7285", "#adb5bd", "#868e96", "#ffc078", "#e8590c", "#b197fc"], strict=True
    )
)
_WIDE, _ROW, _LEFT, _BAR = 1000, 15, 190, 560


def draw(figures: Figures) -> str:
    """Return the picture."""
    columns: list[str] = []
    height = 0.0
    for title, key, word, unit in (
        ("deliveries per second at saturation (logarithmic)", "per_s", "saturated", "/s"),
        ("p50, p99 and p99.9 at 100 tokens/s per agent, in ms (logarithmic)", "p99_ms", "paced", "ms"),
    ):
        cases = [case for case in figures.cases if word in case]
        if cases:
            parts = [_text(10, 26, title, size=14, bold=True)]
            height = max(height, (_bars if unit == "/s" else _curves)(figures, cases, key, 36, parts))
            parts = [f'<g transform="translate({len(columns) * _WIDE} 0)">', *parts, "</g>"]
            columns.append("\n".join(parts))
    wide, y = len(columns) * _WIDE, height + 34
    columns.append(_text(10, y - 12, "On disk: " + "; ".join(f"{peer.name} {peer.stored}" for peer in PEERS) + "."))
    body = "\n".join(columns)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {y:.0f}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _bars(figures: Figures, cases: list[str], key: str, y: float, parts: list[str]) -> float:
    top = max(figures.median(case, name, key) or 1 for case in cases for name in _COLOURS)
    for case in cases:
        y += 16
        parts.append(_text(10, y, case))
        for name, colour in _COLOURS.items():
            value = figures.median(case, name, key)
            if value is None:
                continue
            width = max(1.0, _BAR * (log10(max(value, 1)) - 3) / (log10(top) - 3))
            parts.append(
                f'<rect x="{_LEFT}" y="{y - 9:.0f}" width="{width:.0f}" height="{_ROW - 3}" fill="{colour}"/>'
            )
            parts.append(_text(_LEFT + width + 4, y, f"{value:,.0f}  {name}"))
            y += _ROW
    return y


def _curves(figures: Figures, cases: list[str], key: str, y: float, parts: list[str]) -> float:
    for case in cases:
        y += 16
        parts.append(_text(10, y, case))
        for name, colour in _COLOURS.items():
            points = [figures.median(case, name, each) for each in ("p50_ms", key, "p999_ms")]
            if any(point is None for point in points):
                continue
            places = [_LEFT + _BAR * (log10(max(point or 0, 0.1)) + 1) / 5 for point in points]
            line = " ".join(f"{place:.0f},{y - 4:.0f}" for place in places)
            width = 4 if name == OURS.name else 2
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
            parts += [f'<circle cx="{place:.0f}" cy="{y - 4:.0f}" r="3.5" fill="{colour}"/>' for place in places]
            parts.append(_text(places[-1] + 8, y, f"{' / '.join(map(_short, points))}  {name}"))
            y += _ROW
    return y


def _short(value: float | None) -> str:
    return f"{value:,.0f}" if value is not None and value >= 1000 else f"{value:.3g}"


def _text(x: float, y: float, text: str, *, size: int = 11, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}"{weight}>{escape(text)}</text>'
