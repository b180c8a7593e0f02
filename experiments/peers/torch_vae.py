"""A VAE as PyTorch users write it: fused Adam, torch.compile, autocast to bfloat16; on a GPU if PyTorch finds one.

    python torch_vae.py WORK DATA.npz UNIT [eager|compile|compile_bf16]

UNIT: steps, or images of iwae5000, for each line on standard input; the answer is a line of JSON with its seconds.
DATA.npz: train and test, uint8 [N, H, W, C]. At the end of input: the held-out bound, in nats per image.
"""

import functools
import itertools
import json
import math
import os
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

#         hidden sizes, latents, batch, samples, activation, dynamic binarisation, channels, likelihood
WORKS = {
    "tutorial": ([256], 2, 32, 1, nn.ReLU, False, [], "bernoulli"),
    "mlp400": ([400], 20, 128, 1, nn.ReLU, False, [], "bernoulli"),
    "start": ([400], 20, 128, 1, nn.ReLU, False, [], "bernoulli"),
    "mlp200": ([200, 200], 50, 100, 1, nn.Tanh, True, [], "bernoulli"),
    "iwae50": ([200, 200], 50, 100, 50, nn.Tanh, True, [], "bernoulli"),
    "iwae50_batch20": ([200, 200], 50, 20, 50, nn.Tanh, True, [], "bernoulli"),
    "iwae5000": ([200, 200], 50, 100, 1, nn.Tanh, True, [], "bernoulli"),
    "conv": ([200, 200], 8, 32, 1, nn.Tanh, False, [16, 32], "normal"),
    "conv_mnist": ([200, 200], 8, 128, 1, nn.Tanh, False, [16, 32], "bernoulli"),
}


def dense(sizes, activation):
    """Dense layers, each with its activation."""
    return [part for i, o in itertools.pairwise(sizes) for part in (nn.Linear(i, o), activation())]


class VAE(nn.Module):
    def __init__(self, image_shape, hidden_sizes, num_latents, num_samples, activation, channels, likelihood):
        super().__init__()
        depth, height, width = image_shape
        self.num_samples, self.likelihood = num_samples, likelihood
        if channels:
            low, high = channels
            top = (high, -(-height // 4), -(-width // 4))
            first = [nn.Conv2d(depth, low, 3, 2, 1), activation(), nn.Conv2d(low, high, 3, 2, 1), activation()]
            last = [*dense([hidden_sizes[0], math.prod(top)], activation), nn.Unflatten(1, top)]
            last += [nn.Conv2d(high, 4 * low, 3, 1, 1), nn.PixelShuffle(2), activation()]
            last += [nn.Conv2d(low, 4 * depth, 3, 1, 1), nn.PixelShuffle(2)]
            num_inputs = math.prod(top)
        else:
            num_inputs = depth * height * width
            first, last = [], [nn.Linear(hidden_sizes[0], num_inputs)]
        encoder = [*first, nn.Flatten(), *dense([num_inputs, *hidden_sizes], activation)]
        self.encoder = nn.Sequential(*encoder, nn.Linear(hidden_sizes[-1], 2 * num_latents))
        self.decoder = nn.Sequential(*dense([num_latents, *hidden_sizes[::-1]], activation), *last)

    def log_likelihood(self, x, z):
        """log p(x|z) of each example; x [..., C, H, W], z [..., D]."""
        out = self.decoder(z).float().reshape(*z.shape[:-1], -1)
        x = x.flatten(-3)
        if self.likelihood == "normal":
            return -0.5 * ((x - out) ** 2).sum(-1) - 0.5 * math.log(2 * math.pi) * x.shape[-1]
        return -F.binary_cross_entropy_with_logits(out, x.expand_as(out), reduction="none").sum(-1)

    def forward(self, x):
        """The bound, the mean over the batch x [B, C, H, W]."""
        mean, log_scale = self.encoder(x).float().chunk(2, -1)
        if self.num_samples == 1:
            z = mean + log_scale.exp() * torch.randn_like(mean)
            kl = 0.5 * (mean**2 + (2 * log_scale).exp() - 2 * log_scale - 1).sum(-1)
            return (self.log_likelihood(x, z) - kl).mean()
        return (torch.logsumexp(self.log_weights(x, mean, log_scale, self.num_samples), 0)).mean() - math.log(
            self.num_samples
        )

    def log_weights(self, x, mean, log_scale, num_samples):
        noise = torch.randn(num_samples, *mean.shape, device=mean.device)
        z = mean + log_scale.exp() * noise
        return self.log_likelihood(x, z) + (0.5 * noise**2 - 0.5 * z**2 + log_scale).sum(-1)


def batches(x, size, dynamic):
    """Batches without end, an epoch after another."""
    while True:
        order = torch.randperm(len(x), device=x.device)
        for first in range(0, len(x) - size + 1, size):
            batch = x[order[first : first + size]]
            yield torch.bernoulli(batch) if dynamic else batch


def tell(**what):
    print(json.dumps(what), flush=True)


def main():
    work, path, unit, mode = sys.argv[1], sys.argv[2], int(sys.argv[3]), [*sys.argv, "eager"][4]
    hidden_sizes, num_latents, batch_size, num_samples, activation, dynamic, channels, likelihood = WORKS[work]
    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    with np.load(path) as data:
        arrays = [torch.from_numpy(data[name]).to(device) for name in ("train", "test")]
        train, test = (array.permute(0, 3, 1, 2).float() / 255 for array in arrays)
    model = VAE(train.shape[1:], hidden_sizes, num_latents, num_samples, activation, channels, likelihood)
    model.to(device)
    if not channels:  # the output starts at the mean image, as in the code of Burda et al. (2016)
        with torch.no_grad():
            model.decoder[-1].bias.copy_(torch.logit(train.mean(0).flatten().clamp(1e-3, 1 - 1e-3)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    compiled = functools.partial(torch.compile, mode="reduce-overhead" if on_gpu else None)  # CUDA graphs
    bound = compiled(model) if "compile" in mode else model
    log_weights = compiled(model.log_weights) if "compile" in mode else model.log_weights
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled="bf16" in mode)
    source = batches(train, batch_size, dynamic)

    def steps(number):
        for x in itertools.islice(source, number):
            optimizer.zero_grad(set_to_none=True)
            with autocast:
                loss = -bound(x)
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def log_likelihoods(images):
        """log p(x) of each image from 5000 samples, 1000 at a time."""
        found = []
        for x in images.split(1):
            with autocast:
                mean, log_scale = model.encoder(x).float().chunk(2, -1)
                found.append(torch.cat([log_weights(x, mean, log_scale, 1000).clone() for _ in range(5)]))
        return torch.logsumexp(torch.cat(found, 1), 0) - math.log(5000)

    precision = "bfloat16" if "bf16" in mode else "float32"
    about = {"versions": {"torch": torch.__version__}, "threads": torch.get_num_threads(), "precision": precision}
    steps(1)
    tell(first_step=True, **about)
    if work == "start":
        return
    if work == "iwae5000":
        steps(len(train) // batch_size - 1)
        run = lambda: log_likelihoods(test[:unit])  # noqa: E731
    else:
        run = lambda: steps(unit)  # noqa: E731

    def done():
        run()
        if on_gpu:
            torch.cuda.synchronize()

    done()
    tell(ready=True, **about)
    for _ in sys.stdin:
        began = time.perf_counter()
        done()
        tell(seconds=time.perf_counter() - began)
    with torch.no_grad():
        if work == "iwae5000":
            tell(held_out=float(log_likelihoods(test[:unit]).mean()))
        else:
            parts = test.split(100)
            tell(held_out=sum(len(x) * float(model(x)) for x in parts) / len(test))


if __name__ == "__main__":
    main()
