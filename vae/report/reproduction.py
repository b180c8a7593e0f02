"""A published table beside our numbers, from reproduction.json: reproduction.md, .tex and .html, and for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vae.report import html, latex
from vae.report.markdown import pipes
from vae.report.tables import Table, in_columns
from vae.report.words import estimate

Reproduction = Mapping[str, Any]
HEADS = ["cell", "paper", "ours", "difference", "fraction", "steps", "seconds"]


def rows(found: Reproduction) -> Table:
    """The table: a row for each cell."""
    return HEADS, [
        [
            one["cell"],
            "—" if one["paper"] is None else estimate(one["paper"], one["paper_error"]) + _mark(one),
            estimate(one["ours"], one["ours_error"]),
            "—" if one["difference"] is None else _signed(one["difference"], one["difference_error"]),
            found["fraction"],
            f"{one['steps']:,}",
            f"{one['seconds']:,.0f}",
        ]
        for one in found["cells"]
    ]


def _mark(one: Mapping[str, Any]) -> str:
    return "" if one["quoted_by"] is None else " (second-hand)"


def _signed(value: float, error: float | None) -> str:
    return ("+" if value >= 0 else "") + estimate(value, error)


def title(found: Reproduction) -> str:
    return f"{found['paper']}: {found['place']}"


def head(found: Reproduction) -> str:
    """What stands above the table: which fraction was trained, and how it was judged."""
    y, trained = found["evaluation"], "; ".join(found["trained"])
    seeds = f"{len(found['seeds'])} seed{'s' if len(found['seeds']) > 1 else ''}"
    scaled = "the paper's own protocol" if found["fraction"] == "1" else f"{found['fraction']} of the paper's protocol"
    of_paper = "" if y["num_samples"] == y["paper_num_samples"] else f" (paper: {y['paper_num_samples']:,})"
    subset = "" if y["num_examples"] is None else ", a random subset"
    images = "the" if y["count"] is None else f"{y['count']:,}"
    return (
        f"Trained: {scaled} ({trained}), {seeds} each. {found['words'].capitalize()} of {images} {y['split']} "
        f"images{subset}, k = {y['num_samples']:,}{of_paper}, nats per image."
    )


def notes(found: Reproduction) -> list[tuple[str, str]]:
    """What is needed to read and to repeat the table."""
    lines = [("differs from the paper", text) for text in found["differs"]]
    lines += [("differs", f"{one['cell']}: {text}") for one in found["cells"] for text in one["differs"]]
    lines += [("second-hand", f"{one['cell']}: {one['quoted_by']}") for one in found["cells"] if one["quoted_by"]]
    lines += [("the same runs", f"{one['cell']}: {one['runs_of']}") for one in found["cells"] if one["runs_of"]]
    lines += [("left out", text) for text in found["left_out"]]
    lines += [
        ("seeds", ", ".join(map(str, found["seeds"]))),
        ("±", "of ours, the standard error over seeds; of the paper, as it prints it; of the difference, both"),
        ("seconds", "of the training of one run, alone on this machine: its steps × the measured time of a step"),
        ("command", found["command"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in found["versions"].items())),
        ("code", found["git"] or "not from a git checkout"),
    ]
    return lines


def order(found: Reproduction) -> str | None:
    """How many pairs of cells are in the paper's order; None if the paper orders none of them."""
    known = [one for one in found["cells"] if one["paper"] is not None]
    pairs = [
        (a["paper"] - b["paper"]) * (a["ours"] - b["ours"]) > 0
        for position, a in enumerate(known)
        for b in known[position + 1 :]
        if a["paper"] != b["paper"] and a["of"] != b["of"]
    ]
    return f"{sum(pairs)} of {len(pairs)} pairs of cells are in the paper's order." if pairs else None


def aligned(found: Reproduction) -> str:
    """The table for a terminal."""
    heads, body = rows(found)
    return "\n".join([title(found), head(found), in_columns([heads, *body]), *filter(None, [order(found)])])


def markdown(found: Reproduction) -> str:
    """reproduction.md."""
    heads, body = rows(found)
    lines = [f"# {title(found)}", head(found), pipes(heads, body), *filter(None, [order(found)])]
    return "\n\n".join([*lines, "\n".join(f"- {name}: {text}" for name, text in notes(found))]) + "\n"


def page(found: Reproduction) -> str:
    """reproduction.html, which needs no other file."""
    heads, body = rows(found)
    lines = [f'<tr><th scope="row">{html.text(name)}</th>{html.cells(heads, rest)}</tr>' for name, *rest in body]
    small = f'<p class="small">{html.text(order(found) or "")}</p>'
    return html.document(
        title(found),
        [
            f'<header><p class="kicker">{html.text(found["title"])}</p><h1>{html.text(title(found))}</h1>'
            f'<p class="lede">{html.text(head(found))}</p></header>',
            html.section("Paper and ours", html.table(heads, lines, "settings") + small),
            html.section("How it was done", html.entries(notes(found))),
        ],
    )


def tex(found: Reproduction) -> str:
    """reproduction.tex: a file for \\input, for any LaTeX with the package booktabs."""
    heads, body = rows(found)
    caption = f"{title(found)}. {head(found)}"
    return "\n".join(
        [
            f"% made by: {' '.join(found['command'].split())}",
            r"% In the preamble \usepackage{booktabs}; in the text \input{reproduction.tex}, \ref{tab:reproduction}.",
            r"\begin{table}",
            r"  \centering",
            r"  \footnotesize",
            r"  \setlength{\tabcolsep}{4pt}\setlength{\belowcaptionskip}{4pt}",
            rf"  \caption{{{latex.escaped(caption)}}}",
            r"  \label{tab:reproduction}",
            rf"  \begin{{tabular}}{{@{{}}l{'r' * (len(heads) - 1)}@{{}}}}",
            r"    \toprule",
            "    " + " & ".join(heads) + r" \\",
            r"    \midrule",
            *("    " + " & ".join(_cell(text) for text in row) + r" \\" for row in body),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ]
    ) + "\n"  # fmt: skip


def _cell(text: str) -> str:
    """A number is a formula; a mark after it stays text."""
    number, space, mark = text.partition(" (")
    if number.startswith("+"):
        return f"${latex.math(number)}$"
    return latex.cell(number) + latex.escaped(space + mark)
