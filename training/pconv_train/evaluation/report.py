"""The report as Markdown, and as one HTML file with its pictures inside; the numbers beside them as JSON."""

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path

from pconv.checkpoint import write_atomically

from pconv_train.evaluation.figures import Figure
from pconv_train.evaluation.tables import Cell, Numbers, Row, Table, difference_tables, metric_tables, overviews

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1500px; padding: 0 1rem; color: #1c1c1c; }
h1 { font-size: 1.6rem } h2 { font-size: 1.25rem; margin-top: 2.2rem } h3 { font-size: 1rem; margin-bottom: .3rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { padding: .25rem .35rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #888 }
td small { display: block; color: #777; font-size: 9.5px } td.best { font-weight: 700 }
tr.published td { color: #777; font-style: italic } figure { margin: 1rem 0 2rem } img { max-width: 100%; height: auto }
figcaption { color: #444 } li { overflow-wrap: anywhere }
"""

_INPAINT_NOTES = """
Table 1 of Liu et al. 2018 (arXiv:1804.07723) on other photos: each photo's central square, reduced, with one hole for
each of 6 hole-to-image ratios × {N, B} (N keeps 50/512 of the side from the border, B comes closer). Every method gets
the same pictures, black in the hole. Results are composited: known pixels count as they are. **Seam** is the mean
gradient across the hole's edge ÷ that of the truth: 1 is as in the truth, more is a visible edge, less a blurred one.
**Specks** are pixels of the hole rougher (absolute Laplacian of luma or colour) than 99 % of the truth's there: the
truth has up to 1 %, a blur none; a method that puts invented grain into smooth places has many.
"""

_UPSCALE_NOTES = """
Enlargement by 4 of pictures reduced by MATLAB's antialiased bicubic filter. PSNR and SSIM are of Y (BT.601, studio
range), 4 px at the border left out; a gray photo is its own Y. The **consistency error** is the mean absolute
difference, in percent of the range, between the result averaged over 4×4 px and the reduced picture.
"""

_COMMON_NOTES = """
Intervals are 95 % bootstrap intervals of the mean (2000 draws), resampled by photo. Bold: best of the measured methods,
to the digits shown. Rows marked "published" are copied from the papers: **other photos, other holes**, to compare
orders, not figures. Seconds and megapixels a second are medians; peak memory is of the method's whole process, with
its libraries and weights (on a GPU: what it allocated there).
"""


def write_report(folder: Path, numbers: Numbers, figures: Sequence[Figure]) -> Path:
    """Write report.json, report.md, report.html and the figures into a folder.

    Returns:
        The HTML file.
    """
    for figure in figures:
        figure.sheet.save(folder / figure.file, quality=88)
    text = json.dumps(numbers, indent=1, ensure_ascii=False)
    write_atomically(folder / "report.json", text.encode())
    write_atomically(folder / "report.md", markdown(numbers, figures).encode())
    write_atomically(folder / "report.html", page(numbers, figures, folder).encode())
    return folder / "report.html"


def markdown(numbers: Numbers, figures: Sequence[Figure] = ()) -> str:
    """Write the report as Markdown; figures are links."""
    parts = [f"# {title(numbers)}", *_notes(numbers), *_problems(numbers)]
    for heading, tables in _sections(numbers):
        parts += [f"## {heading}", *(f"### {table.title}\n\n{markdown_table(table)}" for table in tables)]
    parts += [f"## {figure.title}\n\n{figure.caption}\n\n![{figure.title}]({figure.file})" for figure in figures]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table, intervals: bool = True) -> str:
    """Write a table as Markdown."""
    lines = [["", *table.header], ["---"] + ["---:"] * len(table.header)]
    lines += [[row.name, *(_markdown_cell(cell, intervals) for cell in row.cells)] for row in table.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(numbers: Numbers, figures: Sequence[Figure], folder: Path) -> str:
    """Write the report as one HTML page."""
    parts = [f"<h1>{html.escape(title(numbers))}</h1>"]
    parts += [_paragraph(text) for text in _notes(numbers)]
    parts += ["<ul>", *(f"<li>{html.escape(text[2:])}</li>" for text in _problems(numbers)), "</ul>"]
    for heading, tables in _sections(numbers):
        parts += [f"<h2>{html.escape(heading)}</h2>", *(_html_table(table) for table in tables)]
    for figure in figures:
        data = base64.b64encode((folder / figure.file).read_bytes()).decode()
        image = f'<img alt="{html.escape(figure.title)}" src="data:image/jpeg;base64,{data}">'
        parts.append(
            f"<h2>{html.escape(figure.title)}</h2><figure>{image}"
            f"<figcaption>{html.escape(figure.caption)}</figcaption></figure>"
        )
    head = f'<meta charset="utf-8"><title>{html.escape(title(numbers))}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def title(numbers: Numbers) -> str:
    """Say what was done, and on how much."""
    what = "Inpainting" if numbers["task"] == "inpaint" else "Enlargement ×4"
    size = f" of {numbers['size']}×{numbers['size']} px" if numbers.get("size") else ""
    return f"{what}: {len(numbers['measured'])} methods, {numbers['photos']} photos{size}, seed {numbers['seed']}"


def _sections(numbers: Numbers) -> list[tuple[str, list[Table]]]:
    sections = [
        ("Overview", overviews(numbers)),
        ("Figure by figure", metric_tables(numbers)),
        ("Paired differences", difference_tables(numbers)),
    ]
    return [(heading, tables) for heading, tables in sections if tables]


def _notes(numbers: Numbers) -> list[str]:
    own = _INPAINT_NOTES if numbers["task"] == "inpaint" else _UPSCALE_NOTES
    return [" ".join(text.split()) for text in (own, _COMMON_NOTES)]


def _problems(numbers: Numbers) -> list[str]:
    """List methods, and what is missing from the tables."""
    lines = [f"- computed on: {numbers['machine']}"]
    lines += [f"- {name}: {found['identity']}" for name, found in numbers["methods"].items()]
    lines += [f"- {name} not measured: {reason}" for name, reason in numbers["not measured"].items()]
    lines += [f"- {name} skipped: {reason}" for name, reason in numbers["skipped"].items()]
    lines += [f"- {name} left out: {reason}" for name, reason in numbers["unreadable"].items()]
    for name, reasons in numbers["failures"].items():
        lines.append(f"- {name} failed on {len(reasons)} pictures, which its means leave out: {'; '.join(reasons[:5])}")
    if numbers["missing"]:
        lines.append(f"- {numbers['missing']} results are still to be computed: run the same command again")
    return lines


def _markdown_cell(cell: Cell, intervals: bool) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return f"{text} ({cell.interval})" if intervals and cell.interval else text


def _paragraph(text: str) -> str:
    pieces = html.escape(text).split("**")
    return "<p>" + "".join(f"<b>{piece}</b>" if number % 2 else piece for number, piece in enumerate(pieces)) + "</p>"


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in ("", *table.header))
    body = "".join(map(_html_row, table.rows))
    return (
        f"<h3>{html.escape(table.title)}</h3>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _html_row(row: Row) -> str:
    cells = ""
    for cell in row.cells:
        interval = f"<small>{html.escape(cell.interval)}</small>" if cell.interval else ""
        cells += f"<td{' class=best' if cell.best else ''}>{html.escape(cell.text)}{interval}</td>"
    return f"<tr{' class=published' if row.published else ''}><td>{html.escape(row.name)}</td>{cells}</tr>"
