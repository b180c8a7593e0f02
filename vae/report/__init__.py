"""A comparison as files, from comparison.json: report.html, which needs no other file, comparison.md, a table for LaTeX
(comparison.tex) and the numbers of each seed (comparison.csv).

The pictures are PNG files by name, in the order of PICTURES; one that does not exist is left out.
"""

from vae.report.html import page
from vae.report.latex import tex
from vae.report.markdown import markdown
from vae.report.seeds import by_seed
from vae.report.tables import aligned
from vae.report.words import PICTURES

__all__ = ["PICTURES", "aligned", "by_seed", "markdown", "page", "tex"]
