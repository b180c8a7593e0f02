"""comparison.tex: the ranking as a table of a paper, for any LaTeX with the package booktabs."""

from __future__ import annotations

from vae.report.tables import has_bits, pareto_head, ranking_table
from vae.report.words import Comparison, is_tested

HEADS = {"log-likelihood": r"$\log p(x)$", "active units": "active"}
LONGEST = 20  # characters of a label in one line
LEFT_OUT = ("PSIS", "gap", "reconstruction", "epochs", "ms / step")
FOR_BITS = ("KL", "ESS")  # which make room for bits per dimension
SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": "{`}",
}  # fmt: skip


def tex(comparison: Comparison) -> str:
    """A file for \\input. Numbers are bold in rows of which each significantly beats every row that is not bold."""
    heads, rows = ranking_table(comparison)
    left_out = [head for head in heads if head in LEFT_OUT or (head in FOR_BITS and has_bits(comparison))]
    kept = [position for position, head in enumerate(heads) if head not in left_out]
    named = HEADS | {pareto_head(comparison): r"$\hat k$"}
    bold = num_bold(comparison)
    wraps = any(len(row[0]) > LONGEST for row in rows)
    # A long label hangs in lines of its own.
    first, before = (r"p{10em}", r"\raggedright\hangindent=1em ") if wraps else ("l", "")
    body = []
    for rank, row in enumerate(rows):
        label, score, *others = [row[position] for position in kept]
        score = rf"$\mathbf{{{math(score)}}}$" if rank < bold else f"${math(score)}$"
        body.append(" & ".join([before + _name(label), score, *map(cell, others)]) + r" \\")
    command = " ".join(comparison["command"].split())
    return "\n".join(
        [
            f"% {' '.join(comparison['title'].split())}; made by: {command}",
            r"% In the preamble \usepackage{booktabs}; in the text \input{comparison.tex}, and \ref{tab:comparison}.",
            f"% Of the ranking in comparison.md it has no room for: {', '.join(left_out)}.",
            r"\begin{table}",
            r"  \centering",
            r"  \footnotesize",
            r"  \setlength{\tabcolsep}{3pt}\setlength{\belowcaptionskip}{4pt}",
            rf"  \caption{{{_caption(comparison, bold)}}}",
            r"  \label{tab:comparison}",
            rf"  \begin{{tabular}}{{@{{}}{first}{'r' * (len(kept) - 1)}@{{}}}}",
            r"    \toprule",
            "    " + " & ".join(named.get(heads[position], heads[position]) for position in kept) + r" \\",
            r"    \midrule",
            *(f"    {line}" for line in body),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ]
    ) + "\n"  # fmt: skip


def num_bold(comparison: Comparison) -> int:
    """The least number of first objectives of which each beats all others significantly; 0 if there is none."""
    names = [one["label"] for one in comparison["objectives"]]
    rank = {name: position for position, name in enumerate(names)}
    tied = [sorted((rank[p["higher"]], rank[p["lower"]])) for p in comparison["pairs"] if not p["significant"]]
    alone = [count for count in range(1, len(names)) if not any(a < count <= b for a, b in tied)]
    return min(alone, default=0)


def escaped(text: str) -> str:
    """`text` as LaTeX shows it in any font encoding; ? for other letters than those of ASCII."""
    whole = "".join(SPECIAL.get(one, one if one.isascii() and one.isprintable() else "?") for one in text)
    return whole.replace("--", "-{}-")  # which would be one longer dash


def _name(label: str) -> str:
    """A label; words that fit into no line may be broken after = and _."""
    words = []
    for word in map(escaped, label.split(" ")):
        is_long = len(word) > LONGEST
        words.append(word.replace("=", r"=\allowbreak ").replace(r"\_", r"\_\allowbreak ") if is_long else word)
    return " ".join(words)


def _caption(comparison: Comparison, bold: int) -> str:
    y, seeds = comparison["evaluation"], len(comparison["seeds"])
    error = f"; $\\pm$ is the standard error over {seeds} seeds" if seeds > 1 else ", of one seed"
    words = f"Log-likelihood of {y['num_examples']:,} {y['split']} images of "
    words = escaped(words) + escaped(str(y["dataset"]).rsplit("/", 1)[-1])
    count = math(f"{y['num_samples']:,}")
    text = f"{words} by importance sampling with $k = {count}$, in nats per image{error}."
    if is_tested(comparison):
        level = 100 * comparison["level"]
        tested = rf"at a family-wise error of {level:g}\,\% (Holm)"
        text += (
            rf" Bold: each significantly beats every row that is not bold, {tested}."
            if bold
            else rf" No row significantly beats all others, {tested}."
        )
    text += "" if has_bits(comparison) else " ESS: effective sample size of the importance weights."
    limit = y["pareto_k_threshold"]
    return text if limit is None else rf"{text} $\hat k$: share of images whose Pareto $\hat k$ exceeds {limit:.2f}."


def cell(text: str) -> str:
    """The text of a table's cell: numbers with a sign or an error as formulas."""
    if text == "—":
        return "---"
    return f"${math(text)}$" if "±" in text or text.startswith("−") else escaped(text)


def math(text: str) -> str:
    """The text of a number inside a formula."""
    return text.replace("−", "-").replace("±", r"\pm").replace(",", "{,}")
