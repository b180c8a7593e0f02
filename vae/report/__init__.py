"""A comparison as pages, from comparison.json: report.html, which needs no other file, and comparison.md.

The pictures are PNG files by name, in the order of PICTURES; one that does not exist is left out.
"""

from vae.report.html import page
from vae.report.markdown import markdown
from vae.report.words import PICTURES, aligned

__all__ = ["PICTURES", "aligned", "markdown", "page"]
