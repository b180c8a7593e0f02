"""64 runs, 8 seeds and 8 learning rates, as a PyTorch user's script of one process for each core.

    python torch_sweep.py sweep DATA.npz EPOCHS

Each process trains its runs in turn on one core, evaluates the ELBO after each epoch, and saves the weights.
DATA.npz: train, validation and test, uint8 [N, H, W, C].
"""

import importlib.metadata
import itertools
import json
import os
import sys
import tempfile

import numpy as np
import torch
from torch import multiprocessing, nn
from torch.nn import functional as F

RATES = (1e-4, 2e-4, 4e-4, 7e-4, 1.4e-3, 2.7e-3, 5.2e-3, 1e-2)
BATCH_SIZE = 100


def network(sizes):
    hidden = [part for i, o in itertools.pairwise(sizes[:-1]) for part in (nn.Linear(i, o), nn.Tanh())]
    return nn.Sequential(*hidden, nn.Linear(sizes[-2], sizes[-1]))


class VAE(nn.Module):
    def __init__(self, num_pixels):
        super().__init__()
        self.encoder, self.decoder = network([num_pixels, 200, 200, 100]), network([50, 200, 200, num_pixels])

    def forward(self, x):
        mean, log_scale = self.encoder(x).chunk(2, -1)
        logits = self.decoder(mean + log_scale.exp() * torch.randn_like(mean))
        kl = 0.5 * (mean**2 + (2 * log_scale).exp() - 2 * log_scale - 1).sum(-1)
        return (-F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1) - kl).mean()


def train(job):
    """The validation and the test ELBO of one run."""
    path, num_epochs, folder, seed, rate = job
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    with np.load(path) as data:
        names = "train", "validation", "test"
        train, validation, test = (torch.from_numpy(data[name]).flatten(1).float() / 255 for name in names)
    model = VAE(train.shape[-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    for _ in range(num_epochs):
        order = torch.randperm(len(train))
        for first in range(0, len(train) - BATCH_SIZE + 1, BATCH_SIZE):
            x = torch.bernoulli(train[order[first : first + BATCH_SIZE]])
            optimizer.zero_grad(set_to_none=True)
            (-model(x)).backward()
            optimizer.step()
        with torch.no_grad():
            value = float(model(validation))
    torch.save(model.state_dict(), f"{folder}/{seed}-{rate}.pt")
    with torch.no_grad():
        return value, float(model(test))


def main():
    path, num_epochs, processes = sys.argv[2], int(sys.argv[3]), len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder, multiprocessing.Pool(processes) as pool:
        jobs = [(path, num_epochs, folder, seed, rate) for seed in range(8) for rate in RATES]
        best = max(pool.imap_unordered(train, jobs))
    versions = {"torch": importlib.metadata.version("torch")}
    about = {"versions": versions, "threads": processes, "precision": "float32", "held_out": best[1]}
    print(json.dumps(about), flush=True)


if __name__ == "__main__":
    main()
