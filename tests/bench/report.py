"""What was measured, as a table: medians, and ours as a ratio to the best of the others."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from tests.bench.peers import OURS, PEERS, RELAY


@dataclass(frozen=True)
class Metric:
    """A figure worth a line in the table.

    Args:
        key: its name in the records.
        label: its name for people.
        more_is_better: whether the largest is the best.
        cases: where it is of interest: all of these words are in the name of the case.
    """

    key: str
    label: str
    more_is_better: bool
    cases: tuple[str, ...]


METRICS = (
    Metric("per_s", "deliveries/s", True, ("W1", "saturated")),
    Metric("cpu_us_per_delivery", "CPU µs/delivery", False, ("W1", "own clients")),
    Metric("p50_ms", "p50 ms", False, ("W1", "paced")),
    Metric("p99_ms", "p99 ms", False, ("W1", "paced")),
    Metric("p999_ms", "p99.9 ms", False, ("W1", "paced")),
    Metric("server_cpu", "CPU", False, ("W1", "paced")),
    Metric("rss_mb", "RSS MB", False, ("W1", "paced")),
    Metric("bytes_per_delivery", "bytes/delivery", False, ("W1", "paced")),
    Metric("p50_ms", "p50 ms", False, ("W2",)),
    Metric("p99_ms", "p99 ms", False, ("W2", "herd")),
    Metric("bytes", "bytes", False, ("W2",)),
    Metric("server_cpu_s", "CPU s", False, ("W2", "herd")),
    Metric("bytes_per_text_byte", "disk bytes/text byte", False, ("W2", "disk")),
    Metric("kb_per_session", "kB/session", False, ("W3",)),
    Metric("resting_cpu", "CPU at rest", False, ("W3",)),
    Metric("active_cpu", "CPU, 1 % active", False, ("W3",)),
    Metric("tokens_per_s", "tokens/s", True, ("W5", "one")),
    Metric("last_to_first", "last/first CPU", False, ("W5", "one")),
    Metric("rss_bytes_per_token", "RSS bytes/token", False, ("W5", "one")),
    Metric("disk_bytes_per_token", "disk bytes/token", False, ("W5", "one")),
    Metric("join_ms", "join ms", False, ("W5",)),
    Metric("ms", "ms", False, ("W5", "folding")),
    Metric("first_token_p50_ms", "first token p50, over", False, ("W6",)),
    Metric("first_token_p99_ms", "first token p99, over", False, ("W6",)),
    Metric("gateway_first_token_p50_ms", "useChat's gateway p50, over", False, ("W6",)),
    Metric("gateway_first_token_p99_ms", "useChat's gateway p99, over", False, ("W6",)),
    Metric("last_token_p99_ms", "last token p99, over", False, ("W6",)),
)


class Figures:
    """Medians over the rounds.

    Args:
        records: as measured.
    """

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self._records = records
        self.cases = list(dict.fromkeys(record["case"] for record in records))

    def median(self, case: str, peer: str, key: str) -> float | None:
        """Return the median of a figure; None if there is none."""
        values = [
            each[key] for each in self._records if each["case"] == case and each["peer"] == peer and key in each
        ]
        return statistics.median(values) if values else None

    def best(self, case: str, metric: Metric) -> float | None:
        """Return the best figure of the servers that are not ours."""
        others = [self.median(case, peer.name, metric.key) for peer in PEERS if peer is not OURS]
        known = [each for each in others if each is not None]
        return (max if metric.more_is_better else min)(known) if known else None

    def ratio(self, case: str, metric: Metric) -> float | None:
        """Return how many times better ours is than the best of the others."""
        ours, best = self.median(case, OURS.name, metric.key), self.best(case, metric)
        if ours is None or best is None or not ours or not best:
            return None
        return ours / best if metric.more_is_better else best / ours


REGIMES = (
    ("saturated", METRICS[0]),
    ("paced", Metric("server_cpu", "of a core", False, ())),
    ("paced", Metric("p50_ms", "p50 ms", False, ())),
    ("paced", Metric("p99_ms", "p99 ms", False, ())),
)
"""What is shown side by side: as fast as it goes, and at the pace of agents. Who is ahead in one may not be in the other."""


def regimes(figures: Figures) -> str:
    """Return both regimes of W1 side by side, with when each server has on disk what it passes on, in Markdown."""
    heads = " | ".join(f"{regime}: {metric.label}" for regime, metric in REGIMES)
    lines = [f"| sessions x viewers | server | on disk | {heads} |", "|---" * (len(REGIMES) + 3) + "|"]
    shapes = dict.fromkeys(case.rsplit(" ", 1)[0] for case in figures.cases if case.startswith("W1 "))
    for shape in shapes:
        for peer in PEERS:
            values = [figures.median(f"{shape} {regime}", peer.name, metric.key) for regime, metric in REGIMES]
            if any(value is not None for value in values):
                cells = " | ".join(map(_short, values))
                lines.append(f"| {shape.removeprefix('W1 ')} | {peer.name} | {peer.stored} | {cells} |")
    return "\n".join(lines)


def table(figures: Figures) -> str:
    """Return all figures worth a line, in Markdown."""
    names = [peer.name for peer in (*PEERS, RELAY)]
    lines = ["| case | figure | " + " | ".join(names) + " | ours : best |", "|---" * (len(names) + 3) + "|"]
    for case in figures.cases:
        for metric in METRICS:
            if not all(word in case for word in metric.cases):
                continue
            values = [figures.median(case, name, metric.key) for name in names]
            if any(value is not None for value in values):
                ratio = figures.ratio(case, metric)
                cells = [_short(value) for value in values] + [f"**{ratio:.2f} x**" if ratio is not None else "-"]
                lines.append(f"| {case} | {metric.label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1_000_000:
        return f"{value / 1_000_000:.2f} M"
    if value >= 10_000:
        return f"{value / 1000:.0f} k"
    return f"{value:.3g}"
