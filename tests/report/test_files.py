"""comparison.tex and comparison.csv."""

import csv
import io
import re

import pytest

from tests.report.test_report import NAMES, compared
from vae import report
from vae.report import latex


def rows_of(text):
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    return [line.strip().removesuffix(r" \\").split(" & ") for line in body.strip().splitlines()]


@pytest.mark.parametrize(
    ("effects", "num_seeds", "bold"),
    [
        ((-98.0, -99.5, -99.51), 3, 1),  # the best beats both
        ((-98.0, -98.01, -99.5), 3, 2),  # the best two are one, and both beat the last
        ((-98.0, -98.001, -98.002), 3, 0),  # nothing is beaten
        ((-98.0, -99.5, -101.0), 2, 0),  # nothing is tested
    ],
)
def test_bold_is_what_significantly_beats_every_row_that_is_not(effects, num_seeds, bold):
    found = compared(effects, num_seeds)
    rows = rows_of(report.tex(found))
    assert [r"\mathbf" in row[1] for row in rows] == [rank < bold for rank in range(3)]
    assert ("Bold" in report.tex(found)) == (bold > 0)
    assert ("No row significantly beats" in report.tex(found)) == (num_seeds > 2 and bold == 0)


def test_a_row_that_the_best_does_not_beat_is_not_bold_unless_it_beats_the_others_itself():
    """Best over last is significant, and the middle differs from neither: bold for either would claim too much."""
    found = compared((-98.0, -99.5, -99.51))
    for pair in found["pairs"]:
        pair["significant"] = (pair["higher"], pair["lower"]) == (NAMES[0], NAMES[2])
    assert latex.num_bold(found) == 0


def test_a_table_has_a_cell_for_each_column_and_names_are_no_commands():
    text = report.tex(compared((-98.0, -99.5, -99.51)))
    rows = rows_of(text)
    heads = text.split(r"\toprule")[1].split(r"\midrule")[0].split(" & ")
    (columns,) = re.findall(r"begin\{tabular\}\{@\{\}(\w+)@", text)
    assert {len(row) for row in rows} == {len(heads)} == {len(columns)}
    assert rows[0][:2] == ["iwae K=50", "$" + re.findall(r"\$(.*?)\$", rows[0][1])[0] + "$"]
    assert re.fullmatch(r"\$-99\.\d\d \\pm 0\.\d\d\$", rows[1][1])
    escaped = r"elbo \textless{}b\textgreater{}" + r"\&"
    assert rows[1][0] == escaped
    assert text.startswith("% 3 objectives on mnist; made by: python -m experiments.compare")
    assert text.isascii()


def test_every_character_of_a_label_is_shown_as_it_is():
    given = r"a_b%c#d$e{f}g\h~i^j<k>l|m&n--o"
    shown = latex.escaped(given)
    for command, character in ((r"\textbackslash{}", "\\"), (r"\textasciitilde{}", "~"), (r"\textless{}", "<"),
                               (r"\textasciicircum{}", "^"), (r"\textgreater{}", ">"), (r"\textbar{}", "|"),
                               ("-{}-", "--")):  # fmt: skip
        assert command in shown
        shown = shown.replace(command, character)
    assert re.sub(r"\\([_%#$&{}])", r"\1", shown) == given
    assert latex.escaped("猫\n") == "??"


def test_a_long_label_hangs_in_lines_of_its_own():
    assert "p{10em}" not in report.tex(compared((-98.0, -99.5, -99.51)))
    labels = ["elbo likelihood=discretized_logistic", "elbo", "renyi K=5 alpha=0.5 latent_dim=20"]
    found = compared((-98.0, -99.5, -99.51), names=labels)
    text = report.tex(found)
    assert r"\begin{tabular}{@{}p{10em}r" in text
    first, _, last = (row[0].removeprefix(r"\raggedright\hangindent=1em ") for row in rows_of(text))
    assert first == r"elbo likelihood=\allowbreak discretized\_\allowbreak logistic"
    assert last == r"renyi K=5 alpha=0.5 latent\_dim=20"


def test_each_seed_is_a_row_of_numbers_that_a_program_reads_back():
    found = compared((-98.0, -99.5, -99.51))
    rows = list(csv.DictReader(io.StringIO(report.by_seed(found))))
    assert [(row["label"], int(row["seed"])) for row in rows] == [(name, seed) for name in NAMES for seed in range(3)]
    one = found["objectives"][1]
    assert [float(row["elbo"]) for row in rows[3:6]] == one["elbo_by_seed"]
    assert [row["run"] for row in rows[3:6]] == one["runs"]
    assert [row["num_samples"] for row in rows[::3]] == ["50", "", "50"]


def test_bits_per_dimension_take_the_room_of_two_columns():
    found = compared((-98.0, -99.5, -99.51))
    assert " KL & " in report.tex(found)
    for one in found["objectives"]:
        one |= {"bits_per_dimension": 3.14159, "bits_per_dimension_se": 0.0123}
    text = report.tex(found)
    assert [row[3] for row in rows_of(text)] == [r"$3.142 \pm 0.012$"] * 3
    assert "bits / dim & active" in text
    assert "no room for: PSIS, gap, KL, reconstruction, ESS, epochs, ms / step." in text
