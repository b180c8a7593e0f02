"""The registry of published tables that experiments.reproduce trains: one file a paper."""

from experiments.papers import burda2016, flax_example, li2016, rainforth2018, tutorials, vampprior2018
from experiments.papers.paper import PublishedTable

TABLES: dict[str, PublishedTable] = {
    "burda2016": burda2016.TABLE,
    "rainforth2018": rainforth2018.TABLE,
    "li2016": li2016.TABLE,
    "vampprior2018": vampprior2018.TABLE,
    "flax_example": flax_example.TABLE,
    "tutorials": tutorials.TABLE,
}
