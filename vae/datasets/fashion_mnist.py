"""Fashion-MNIST (Xiao et al., 2017): 60,000 + 10,000 pictures of clothing, 28×28, grey, background is 0.

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
    publisher="Zalando Research",
    licence="MIT",
)
_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
DATA = RawData(
    name="fashion_mnist",
    files=(
        RawFile(
            url=_URL + "train-images-idx3-ubyte.gz",
            size=26421880,
            checksum="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            unpacked="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        RawFile(
            url=_URL + "train-labels-idx1-ubyte.gz",
            size=29515,
            checksum="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            unpacked="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        RawFile(
            url=_URL + "t10k-images-idx3-ubyte.gz",
            size=4422102,
            checksum="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            unpacked="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        RawFile(
            url=_URL + "t10k-labels-idx1-ubyte.gz",
            size=5148,
            checksum="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            unpacked="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    system="/usr/share/datasets/fashion-mnist",  # Debian's dataset-fashion-mnist, compressed anew
)
