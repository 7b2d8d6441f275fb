"""From a run's records to the report's numbers (JSON), and from them to tables."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pconv_train.evaluation.measure import Metric
from pconv_train.evaluation.methods import Method
from pconv_train.evaluation.published import published
from pconv_train.evaluation.run import Run
from pconv_train.evaluation.statistics import ALL, by_photo, costs, paired_differences, summarize

Numbers = dict[str, Any]  # the content of report.json


@dataclass(frozen=True)
class Cell:
    """A figure as text, with its interval."""

    text: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A method's figures; published ones are of other photos."""

    name: str
    cells: Sequence[Cell]
    published: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the report."""

    title: str
    header: Sequence[str]
    rows: Sequence[Row]


def summarize_run(
    run: Run,
    methods: Sequence[Method],
    metrics: Sequence[Metric],
    columns: list[str],
    reference: str,
    seed: int,
    task: str,
) -> Numbers:
    """Collect all that the report tells: figures, intervals, differences, costs, what went wrong."""
    records = [record for record in run.records.values() if record["column"] in columns]
    tables: Numbers = {}
    for metric in metrics:
        values = by_photo(records, metric.key, columns)
        figures, differences = summarize(values, seed), paired_differences(values, reference, seed)
        tables[metric.key] = {"figures": _plain(figures), "differences": _plain(differences)}
    measured = costs(records)
    names = [method.name for method in methods if method.name in measured]
    return {
        "task": task,
        "seed": seed,
        "columns": [*columns, ALL] if task == "inpaint" else columns,
        "reference": reference,
        "metrics": [asdict(metric) for metric in metrics],
        "methods": {m.name: {"kind": m.kind, "identity": m.identity} for m in methods},
        "measured": names,
        "photos": len({record["photo_sha256"] for record in records}),
        "results": len(records),
        "tables": tables,
        "machine": "; ".join(dict.fromkeys(record["machine"] for record in records)),
        "costs": {name: measured[name] for name in names},
        "published": published(task),
        "failures": run.failures,
        "skipped": run.skipped,
        "unreadable": {Path(path).name: reason for path, reason in run.unreadable.items()},
        "missing": run.missing,
    }


def overviews(numbers: Numbers) -> list[Table]:
    """Put all figures and what a picture costs in one table: of the mean over all columns, or of each set."""
    return [_overview(numbers, column) for column in ([ALL] if ALL in numbers["columns"] else numbers["columns"])]


def _overview(numbers: Numbers, column: str) -> Table:
    metrics = [Metric(**fields) for fields in numbers["metrics"]]
    header = [*(metric.label for metric in metrics), "seconds", "Mpx/s", "peak memory, MiB"]
    best = {metric.key: _best(metric, column, numbers["tables"][metric.key]["figures"]) for metric in metrics}
    rows = []
    for name in numbers["measured"]:
        cells = [
            _cell(numbers["tables"][metric.key]["figures"].get(name, {}).get(column), metric, name in best[metric.key])
            for metric in metrics
        ]
        cost = numbers["costs"][name]
        took = [f"{cost['seconds']:.3f}", f"{cost['megapixels_per_second']:.2f}", f"{cost['peak_mib']:.0f}"]
        rows.append(Row(name, [*cells, *map(Cell, took)]))
    return Table("Mean of all columns" if column == ALL else column, header, rows)


def metric_tables(numbers: Numbers) -> list[Table]:
    """Make one table for each metric, published rows below the measured ones."""
    tables = []
    for fields in numbers["metrics"]:
        metric, columns = Metric(**fields), numbers["columns"]
        figures = numbers["tables"][metric.key]["figures"]
        best = {column: _best(metric, column, figures) for column in columns}
        rows = [
            Row(name, [_cell(figures.get(name, {}).get(c), metric, name in best[c]) for c in columns])
            for name in numbers["measured"]
        ]
        for name, known in numbers["published"].get(metric.key, {}).items():
            cells = [Cell(f"{known[c]:.{metric.digits}f}" if c in known else "") for c in columns]
            if any(cell.text for cell in cells):
                rows.append(Row(f"{name} (published)", cells, published=True))
        arrow = {"lower": "↓", "higher": "↑", "one": "→ 1"}[metric.better]
        tables.append(Table(f"{metric.label} {arrow}", columns, rows))
    return tables


def difference_tables(numbers: Numbers) -> list[Table]:
    """Make one table for each metric: method − reference on the same pictures, and on how many photos it is better."""
    tables = []
    for fields in numbers["metrics"]:
        metric, columns = Metric(**fields), numbers["columns"]
        found = numbers["tables"][metric.key]["differences"]
        rows = [
            Row(name, [_cell(found[name].get(c), metric, sign=True) for c in columns])
            for name in numbers["measured"]
            if name in found
        ]
        if rows:
            tables.append(Table(f"{metric.label}: method − {numbers['reference']}, same pictures", columns, rows))
    return tables


def _plain(intervals: Mapping[str, Mapping[str, Any]]) -> Numbers:
    return {name: {column: asdict(found) for column, found in columns.items()} for name, columns in intervals.items()}


def _best(metric: Metric, column: str, figures: Mapping[str, Any]) -> set[str]:
    """Name the methods that are best to the digits shown."""
    means = {name: round(found[column]["mean"], metric.digits) for name, found in figures.items() if column in found}
    if len(means) < 2:
        return set()
    ranks = {n: {"lower": mean, "higher": -mean, "one": abs(mean - 1)}[metric.better] for n, mean in means.items()}
    return {name for name, rank in ranks.items() if rank == min(ranks.values())}


def _cell(found: Mapping[str, Any] | None, metric: Metric, best: bool = False, sign: bool = False) -> Cell:
    if found is None:
        return Cell("–")
    style = f"{'+' if sign else ''}.{metric.digits}f"
    interval = f"{found['low']:{style}} … {found['high']:{style}}" if found["photos"] > 1 else ""
    if sign and (better := {"lower": found["below"], "higher": found["above"]}.get(metric.better)) is not None:
        interval += f"{'; ' if interval else ''}{better}/{found['photos']} better"
    return Cell(f"{found['mean']:{style}}", interval, best)
