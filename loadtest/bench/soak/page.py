"""The curves of a soak: goodput and latency with each fault in them, memory, files, threads. A page, and a drawing."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from loadtest.bench.clients.figures import Row
from loadtest.bench.servers.processes import ProcessUse
from loadtest.bench.soak.judgement import Judge
from loadtest.reports import plots
from loadtest.reports.page import notes, page, section, stylesheet, table, tiles
from loadtest.reports.plots import Axis, Chart, linear, logarithmic

_BIN_S = 2.0
# A row of the drawing holds this much, so that faults a minute apart have room for their letters.
_ROW_S, _MOST_ROWS = 900.0, 8
_COLOURS = ("s1", "s2", "s3", "s5", "s6")


def soak_page(judge: Judge, rows: Sequence[Row], model: str) -> str:
    record = judge.record
    failed = [row for row in rows if row.get("verdict") in ("failed", "grows")]
    parts = [
        tiles(
            {
                "minutes": f"{record.seconds / 60:g}", "requests": f"{len(record.outcomes):,}",
                "faults": str(len(record.struck)), "goodput outside of faults": f"{judge.goodput_outside:.2%}",
                "goodput during faults": f"{judge.goodput_within:.1%}", "p95 outside": f"{judge.normal_p95_ms:.0f} ms",
            }
        ),
        notes(
            [*(_failure(row) for row in failed),
             *(f"left out: {what}, since {why}" for what, why in record.lacking.items())]
            or ["all that must hold has held"]
        ),
        section("Goodput through the faults", "".join(goodput_rows(judge)) + _key(judge), _faults(rows), open_=True),
        section("Latency", _latency(judge), ""),
        section("What must hold", "", _verdicts(rows)),
        *(section(name, _use(judge, name, figure), "") for name, figure in _USES.items()),
    ]  # fmt: skip
    lede = f"{model}, {record.offered_per_s:.1f} requests a second, of {record.capacity_per_s:.1f} that it can take."
    return page("Soak", lede, parts)


def _failure(row: Row) -> str:
    grew = (
        f" (grew by {row['grew_in_life']} in a life, {row['grew_over_run']} over the run)"
        if "grew_in_life" in row
        else ""
    )
    return f"FAILED: {row['case']}: {row['value']}{grew}; must be {row['limit']}"


_USES: Mapping[str, Callable[[ProcessUse], float]] = {
    "Memory, MB": lambda use: use.memory_bytes / 1e6,
    "Open files": lambda use: float(use.files),
    "Threads": lambda use: float(use.threads),
}


def goodput_rows(judge: Judge) -> list[str]:
    """Charts one below the other, each of some minutes."""
    seconds = judge.record.seconds
    row_s = min(max(_ROW_S, seconds / _MOST_ROWS), seconds)
    curve = [(middle_s, 100 * share) for middle_s, share, *_ in judge.curve(_BIN_S)]
    charts = []
    for start_s in _starts(seconds, row_s):
        end_s = start_s + row_s
        chart = Chart(
            f"Goodput, minutes {start_s / 60:g} to {end_s / 60:g}",
            "The share of requests that were answered rightly and in time, by when they were due; faults as bands.",
            Axis("minutes", start_s / 60, end_s / 60),
            Axis("answered in time, %", 0, 118),
            height=170,
        )
        _bands(chart, judge, start_s, end_s)
        chart.line([(at_s / 60, share) for at_s, share in curve if start_s <= at_s <= end_s], "s1")
        charts.append(chart.svg())
    return charts


def _starts(seconds: float, row_s: float) -> list[float]:
    return [row_s * row for row in range(max(1, round(seconds / row_s)))]


def _bands(chart: Chart, judge: Judge, start_s: float, end_s: float) -> None:
    for struck in judge.record.struck:
        if start_s <= struck.start_s < end_s:
            tip = f"{struck.name}: normal again {judge.recovery_s(struck):.1f} s after its end"
            again_s = min(struck.end_s + judge.recovery_s(struck), end_s)
            chart.band(struck.start_s / 60, again_s / 60, "s4", tip)
            chart.band(struck.start_s / 60, struck.end_s / 60, "bad", tip, text=struck.sign)


def _key(judge: Judge) -> str:
    signs = dict(sorted((struck.sign, struck.name) for struck in judge.record.struck))
    colours = plots.legend([("s1", "answered in time"), ("bad", "a fault"), ("s4", "until normal again")])
    return f"{colours}<p>{', '.join(f'{sign} {name}' for sign, name in signs.items())}</p>"


def _latency(judge: Judge) -> str:
    curve = list(judge.curve(max(_BIN_S * 5, judge.record.seconds / 300)))
    values = [value for _, _, *latencies in curve for value in latencies]
    chart = Chart(
        "Latency over time", f"p50, p95 and maximum; outside of faults p95 is {judge.normal_p95_ms:.0f} ms.",
        Axis("minutes", 0, judge.record.seconds / 60), logarithmic("ms", values),
    )  # fmt: skip
    for struck in judge.record.struck:
        chart.band(struck.start_s / 60, struck.end_s / 60, "bad", struck.name)
    for place, (css, label) in enumerate((("s1", "p50"), ("s2", "p95"), ("s3", "maximum"))):
        chart.line([(each[0] / 60, each[2 + place]) for each in curve], css, label)
    return chart.svg()


def _use(judge: Judge, name: str, figure: Callable[[ProcessUse], float]) -> str:
    """A line for each kind of process: the sum over those of one kind."""
    lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for sample in judge.record.samples:
        sums: dict[str, float] = defaultdict(float)
        for use in sample.processes:
            sums[use.name] += figure(use)
        for kind, value in sums.items():
            lines[kind].append((sample.at_s / 60, value))
    values = [value for points in lines.values() for _, value in points]
    chart = Chart(
        name, "By kind of process, over the run.",
        Axis("minutes", 0, judge.record.seconds / 60), linear(name, values),
    )  # fmt: skip
    for css, (kind, points) in zip(_COLOURS, sorted(lines.items()), strict=False):
        chart.line(points, css, kind)
    return chart.svg()


def _faults(rows: Sequence[Row]) -> str:
    heads = ("fault", "times", "lasted, s", "recovery, s", "slowest, s", "answers meanwhile")
    names = ("times", "lasted_s", "recovery_median_s", "recovery_most_s")
    found = [row for row in rows if str(row["case"]).startswith("fault: ")]
    return table(heads, [(str(row["case"])[7:], *(str(row[name]) for name in names), _said(row)) for row in found])


def _said(row: Row) -> str:
    answers = row["answers"]
    assert isinstance(answers, Mapping)
    return ", ".join(f"{count} × {status}" for status, count in answers.items())


def _verdicts(rows: Sequence[Row]) -> str:
    heads = ("what", "is", "grew in a life", "grew over the run", "must be", "verdict")
    names = ("value", "grew_in_life", "grew_over_run", "limit", "verdict")
    found = [row for row in rows if "verdict" in row]
    return table(heads, [(str(row["case"]), *(str(row.get(name, "")) for name in names)) for row in found])


def drawing(judge: Judge) -> str:
    """The rows of goodput as one file, in light and dark."""
    rows = [re.sub(r"</svg>.*", "</svg>", each, flags=re.DOTALL) for each in goodput_rows(judge)]
    signs = dict(sorted((struck.sign, struck.name) for struck in judge.record.struck))
    height = 170 * len(rows) + 16 * -(-len(signs) // 3) + 12
    placed = "".join(
        each.replace("<svg ", f'<svg x="0" y="{170 * number}" width="{plots.WIDTH}" height="170" ', 1)
        for number, each in enumerate(rows)
    )
    names = "".join(
        f'<text class="label" x="{64 + 218 * (place % 3)}" y="{170 * len(rows) + 16 + 16 * (place // 3)}">'
        f"{sign} {name}</text>"
        for place, (sign, name) in enumerate(signs.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {plots.WIDTH} {height}">'
        f'<style>{stylesheet()}</style><rect width="100%" height="100%" fill="var(--paper)"/>{placed}{names}</svg>\n'
    )
