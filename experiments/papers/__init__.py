"""The registry of published tables that experiments.reproduce trains: one file a paper."""

from experiments.papers import burda2016
from experiments.papers.paper import PublishedTable

TABLES: dict[str, PublishedTable] = {
    "burda2016": burda2016.TABLE,
}
