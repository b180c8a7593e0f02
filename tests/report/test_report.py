"""The pages of a comparison: whole in themselves, and saying what the statistics say."""

import base64
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from vae import figures, report
from vae.evaluation import comparison
from vae.report import tables, words
from vae.report.html import STYLE

NAMES = ["iwae K=50", "elbo <b>&", "renyi"]


def compared(effects, num_seeds=3, tuning=(), names=NAMES):
    """What comparison.json holds of simulated runs, best first."""
    rng = np.random.default_rng(0)
    shape = len(effects), num_seeds, 50
    scores = np.array(effects)[:, None, None] + rng.normal(size=(1, 1, 50)) + 0.05 * rng.normal(size=shape)
    found = comparison.compare(scores)
    pairs = [
        {key: None if isinstance(value, float) and np.isnan(value) else value for key, value in pair.items()}
        for pair in comparison.rows(found, names)
    ]
    objectives = [
        {
            "label": name,
            **of_seeds("log_likelihood", by_seed, num_seeds),
            **of_seeds("log_likelihood_psis", by_seed + 0.25, num_seeds),
            **of_seeds("elbo", by_seed - 1, num_seeds),
            **of_seeds("kl", np.full(num_seeds, 20.0), num_seeds),
            **of_seeds("reconstruction", np.full(num_seeds, -75.25), num_seeds),
            **of_seeds("effective_sample_size", np.full(num_seeds, 1234.5), num_seeds),
            **of_seeds("pareto_k_above_threshold", np.full(num_seeds, 0.125), num_seeds),
            "bits_per_dimension": None,
            "active_units": units,
            "runs": [f"runs/{name}-{seed}" for seed in range(num_seeds)],
            "latent_dim": 50,
            "epochs": 20,
            "seconds_per_step": 0.0125,
            "settings": {"objective": name.split()[0]},
        }
        for name, by_seed, units in zip(names, scores.mean(-1), (22.333, 25.0, None), strict=True)
    ]
    evaluation = {"dataset": "mnist", "split": "test", "num_examples": 10000, "num_samples": 5000, "seed": 0}
    return {
        "title": "3 objectives on mnist",
        "conclusion": comparison.conclusion(names, pairs, num_seeds),
        "evaluation": evaluation | {"binarization": "fixed", "likelihood": "bernoulli", "pareto_k_threshold": 0.7},
        "level": 0.05,
        "seeds": list(range(num_seeds)),
        "objectives": objectives,
        "pairs": pairs,
        "tuning": list(tuning),
        "tuning_samples": 100,
        "budget": "equal numbers of steps",
        "settings": {"network": "mlp"},
        "differing": {"objective": ["iwae", "elbo", "renyi"], "num_samples": ["50", "—", "50"]},
        "command": "python -m experiments.compare --objectives='elbo iwae:num_samples=50'",
        "versions": {"jax": "1"},
        "git": None,
        "left_out": ["renyi lr=0.1 diverged (seed 2)"],
    }


def of_seeds(name, values, num_seeds):
    error = None if num_seeds == 1 else float(values.std(ddof=1) / num_seeds**0.5)
    return {name: float(values.mean()), f"{name}_se": error, f"{name}_by_seed": values.tolist()}


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    runs = {name: rng.uniform(-101, -99, 3) for name in NAMES}
    curves = {name: [(np.arange(1, 6) * 100, np.linspace(-150, -100, 5) + s) for s in range(3)] for name in NAMES}
    curves["renyi"] = []
    images = {name: rng.uniform(size=(4, 8, 8, 1)) for name in NAMES}
    made = {
        "log_likelihoods": figures.log_likelihoods(runs, "title"),
        "differences": figures.differences({"a": (1.0, 0.5, 1.5, True), "b": (0.1, -1.0, 1.2, False)}, "c", "title"),
        "elbo_by_step": figures.curves_of_objectives(curves, "step", "nats", "title"),
        "rate_distortion": figures.rate_distortion({n: (v + 125, v + 175) for n, v in runs.items()}, "title"),
        "kl_spectra": figures.kl_spectra({n: rng.uniform(0, 2, (3, 6)) for n in NAMES}, "title"),
        "samples": figures.side_by_side(images, "title"),
    }
    return {name: figures.png(figure) for name, figure in made.items()}


@pytest.fixture(scope="module")
def page(pictures):
    return report.page(compared([-98.0, -99.5, -99.51]), pictures, ["#123456"])


class Reader(HTMLParser):
    """Tags with their attributes, and the text of headings and paragraphs."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_well_formed(page):
    assert page.startswith("<!doctype html>")
    root = ElementTree.fromstring(page.split("\n", 1)[1])
    assert [child.tag for child in root] == ["head", "body"]


def test_the_page_needs_no_other_file_and_no_script(page):
    tags = Reader(page).tags
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in tags}
    references = [value for _, given in tags for name, value in given.items() if name in ("src", "href", "srcset")]
    assert references
    assert all(value.startswith("data:image/png;base64,") for value in references)
    assert "http" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert not [name for _, given in tags for name in given if name.startswith("on")]


def test_every_picture_is_there_decodes_and_has_words(page, pictures):
    shown = [given for tag, given in Reader(page).tags if tag == "img"]
    assert len(shown) == len(pictures) == page.count("<figcaption>")
    for given in shown:
        assert given["alt"]
        content = base64.b64decode(given["src"].split(",", 1)[1])
        assert content in pictures.values()
        image = Image.open(io.BytesIO(content))
        image.load()
        assert min(image.size) > 100


def test_every_cell_says_the_head_of_its_column_for_a_phone_that_shows_no_heads(page):
    tables = list(ElementTree.fromstring(page.split("\n", 1)[1]).iter("table"))
    assert [table.get("class") for table in tables] == ["ranking", "matrix", "settings"]
    for table in tables:
        head, body = table
        names = ["".join(cell.itertext()) for cell in head[0]]
        for row in body:
            shown = [cell.get("data-head", "").removeprefix("over ") for cell in row if cell.tag == "td"]
            expected = [
                "" if cell.get("class") == "none" else name for cell, name in zip(list(row)[1:], names[1:], strict=True)
            ]
            assert shown == expected


def test_on_paper_no_table_scrolls_and_no_picture_is_cut_and_cards_are_as_white_as_the_pictures():
    rules = STYLE.split("@media print {")[1]
    assert ".scroll { overflow: visible; }" in rules
    assert re.search(r"figure, tr[^{]*\{ break-inside: avoid; \}", rules)
    assert re.search(r"\nfigure \{[^}]*background: #fff;", STYLE)
    assert "filter" not in STYLE  # a swatch has the colour of its curve in the dark too


def test_names_are_text_and_never_markup(page):
    assert "elbo <b>&" not in page
    assert "elbo &lt;b&gt;&amp;" in page
    assert "b" not in {tag for tag, _ in Reader(page).tags}


@pytest.mark.parametrize("effects", [(-98.0, -99.5, -99.51), (-98.0, -98.01, -99.5), (-98.0, -98.001, -98.002)])
def test_the_conclusion_is_what_the_statistics_say(effects, pictures):
    found = compared(effects)
    best, middle, last = NAMES
    text = "".join(Reader(report.page(found, pictures, ["#000"])).text)
    sentences = " ".join(found["conclusion"])
    for sentence in found["conclusion"]:
        assert sentence in text
    leads = {pair["lower"]: pair for pair in found["pairs"] if pair["higher"] == best}
    for name, pair in leads.items():
        claimed = f"{name} by {pair['difference']:.2f} ± {pair['standard_error']:.2f}"
        assert (claimed in sentences) == pair["significant"]
        assert (f"{name} ({pair['difference']:.2f})" in sentences) != pair["significant"]
    (other,) = [pair for pair in found["pairs"] if pair["higher"] != best]
    assert (f"{middle} beats {last} by" in sentences) == other["significant"]
    assert ("No other difference is significant." in sentences) != other["significant"]
    assert ("beats" in sentences) == any(pair["significant"] for pair in found["pairs"])


def test_three_outcomes_were_tried():
    """Of the test above: the best wins over both, over one, over none."""
    outcomes = [
        [pair["significant"] for pair in compared(effects)["pairs"]]
        for effects in ((-98.0, -99.5, -99.51), (-98.0, -98.01, -99.5), (-98.0, -98.001, -98.002))
    ]
    assert outcomes == [[True, True, False], [False, True, True], [False, False, False]]


def test_significance_in_the_table_of_pairs_is_that_of_the_statistics():
    found = compared([-98.0, -98.01, -99.5])
    text = report.page(found, {}, ["#000"])
    assert text.count('<td class="yes" ') == sum(pair["significant"] for pair in found["pairs"]) == 2
    assert text.count('<td class="no" ') == 1
    table = report.markdown(found, []).split("## Every pair")[1].split("##")[0]
    rows = [line.split(" | ") for line in table.splitlines() if "±" in line and line.startswith("|")]
    assert [bool(re.search("significant", row[-1])) for row in rows] == [p["significant"] for p in found["pairs"]]


@pytest.mark.parametrize(
    ("num_seeds", "reason"),
    [(1, "nothing tells a difference from chance"), (2, "a difference is described, not tested")],
)
def test_with_fewer_than_three_seeds_nothing_is_claimed(num_seeds, reason):
    found = compared([-98.0, -99.5, -99.6], num_seeds)
    for text in (report.page(found, {}, ["#000"]), report.markdown(found, [])):
        assert "beats" not in text
        assert "ignificant" not in text
        assert "Holm" not in text.replace("p (Holm)", "")
        assert reason in text
        assert 'class="yes"' not in text
        assert "nan" not in text.lower()
        for pair in found["pairs"]:
            error = "" if num_seeds == 1 else f" ± {pair['standard_error']:.2f}"
            assert f"{pair['difference']:.2f}{error}" in text


def test_what_was_tuned_and_what_was_left_out_is_told():
    tried = [
        {"label": "elbo", "point": {"learning_rate": rate}, "log_likelihood": score, "log_likelihood_se": 0.1,
         "chosen": chosen}
        for rate, score, chosen in ((1e-3, -100.0, True), (1e-1, None, False))
    ]  # fmt: skip
    for text in (report.page(compared([-98.0, -99.5, -99.6], tuning=tried), {}, ["#000"]),
                 report.markdown(compared([-98.0, -99.5, -99.6], tuning=tried), [])):  # fmt: skip
        assert "learning_rate = 0.001" in text
        assert "diverged" in text
        assert "renyi lr=0.1 diverged (seed 2)" in text


def test_the_markdown_links_the_pictures_that_exist():
    text = report.markdown(compared([-98.0, -99.5, -99.6]), ["samples"])
    assert re.findall(r"!\[.*?\]\((.*?)\)", text) == ["figures/samples.png"]
    assert text.startswith("# 3 objectives on mnist\n\niwae K=50 beats")


def test_the_ranking_on_a_terminal_has_the_cells_of_the_markdown_one_below_the_other():
    found = compared([-98.0, -99.5, -99.6])
    lines = report.aligned(found).splitlines()
    heads, rows = tables.ranking_table(found)
    shown = [heads.index(name) for name in (*tables.ON_TERMINAL[:5], "k̂ > 0.70", "ms / step")]
    assert [re.split(" {2,}", line) for line in lines] == [[row[i] for i in shown] for row in (heads, *rows)]
    assert len({len(line) for line in lines}) == 1


def test_every_number_with_seeds_has_its_error_and_the_samples_their_diagnostics():
    heads, rows = tables.ranking_table(compared([-98.0, -99.5, -99.6]))
    first = dict(zip(heads, rows[0], strict=True))
    assert all(
        re.fullmatch(r"−?[\d.]+ ± [\d.]+", first[name])
        for name in ("log-likelihood", "PSIS", "ELBO", "KL", "reconstruction")
    )
    plain, smoothed = (float(first[name].split()[0].replace("−", "-")) for name in ("log-likelihood", "PSIS"))
    assert smoothed - plain == pytest.approx(0.25, abs=0.011)
    assert (first["ESS"], first["k̂ > 0.70"]) == ("1,234", "12.5 %")


def test_bits_per_dimension_are_a_column_if_every_objective_has_them():
    found = compared([-98.0, -99.5, -99.6])
    assert "bits / dim" not in report.markdown(found, [])
    for one in found["objectives"]:
        one |= {"bits_per_dimension": 3.14159, "bits_per_dimension_se": 0.0123}
    heads, rows = tables.ranking_table(found)
    assert {row[heads.index("bits / dim")] for row in rows} == {"3.142 ± 0.012"}
    assert "masses of the 256 values" in report.markdown(found, [])
    found["objectives"][1]["bits_per_dimension"] = None
    assert "bits / dim" not in report.page(found, {}, ["#000"])


def test_the_settings_in_which_objectives_differ_are_a_table_and_the_others_a_line():
    found = compared([-98.0, -99.5, -99.6])
    text = report.markdown(found, []).split("## How it was done")[1]
    assert "| objective | objective | num_samples |" in text
    assert "| iwae K=50 | iwae | 50 |" in text
    assert "- the same in all: network mlp" in text
    page = report.page(found, {}, ["#000"]).split("How it was done")[1]
    assert re.sub(r' data-head="\w+"', "", page).count("</th><td><span>iwae</span></td><td><span>50</span></td>") == 1
    assert "<dd>network mlp</dd>" in page


def test_a_p_of_all_pairs_is_called_that_of_holm():
    page = report.page(compared([-98.0, -99.5, -99.6]), {}, ["#000"])
    assert len(re.findall(r"p \(Holm\) (=|&lt;)", page)) == page.count("<small>p") == 3


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [
        (["elbo", "iwae"], "2 objectives"),
        (["elbo", "iwae", "elbo", "iwae", "iwae", "elbo"], "2 objectives in 6 settings"),
        (["iwae", "iwae"], "1 objective in 2 settings"),
    ],
)
def test_objectives_are_counted_as_what_they_are_and_not_as_settings(objectives, expected):
    assert words.counted(objectives) == expected
    found = compared([-98.0, -99.5, -99.6])
    found["objectives"] = [found["objectives"][0] | {"settings": {"objective": name}} for name in objectives]
    assert f"k = 5,000; {expected}, 3 seeds each." in words.how_it_was_judged(found)
