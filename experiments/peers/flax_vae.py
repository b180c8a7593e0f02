"""A VAE as JAX users write it: Flax linen, optax.adam, and one jitted step in a Python loop.

    python flax_vae.py WORK DATA.npz UNIT

UNIT: steps for each line on standard input; the answer is a line of JSON with its seconds.
DATA.npz: train and test, uint8 [N, H, W, C]. At the end of input: the held-out bound, in nats per image.
"""

import json
import os
import sys
import time

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

#         hidden sizes, latents, batch, samples, activation, dynamic binarisation
WORKS = {
    "tutorial": ([256], 2, 32, 1, nn.relu, False),
    "mlp400": ([400], 20, 128, 1, nn.relu, False),
    "start": ([400], 20, 128, 1, nn.relu, False),
    "mlp200": ([200, 200], 50, 100, 1, nn.tanh, True),
    "iwae50": ([200, 200], 50, 100, 50, nn.tanh, True),
    "iwae50_batch20": ([200, 200], 50, 20, 50, nn.tanh, True),
}


class VAE(nn.Module):
    hidden_sizes: list
    num_latents: int
    num_samples: int
    activation: object
    mean_image: object

    @nn.compact
    def __call__(self, x, key):
        """The bound, the mean over the batch x [B, pixels]."""
        hidden = x
        for size in self.hidden_sizes:
            hidden = self.activation(nn.Dense(size)(hidden))
        mean, log_scale = jnp.split(nn.Dense(2 * self.num_latents)(hidden), 2, axis=-1)
        noise = jax.random.normal(key, (self.num_samples, *mean.shape))
        z = mean + jnp.exp(log_scale) * noise
        hidden = z
        for size in self.hidden_sizes[::-1]:
            hidden = self.activation(nn.Dense(size)(hidden))
        # The output starts at the mean image, as in the code of Burda et al. (2016).
        logit = jax.scipy.special.logit(self.mean_image.clip(1e-3, 1 - 1e-3))
        logits = nn.Dense(x.shape[-1], bias_init=lambda *_: logit)(hidden)
        log_p = -optax.sigmoid_binary_cross_entropy(logits, jnp.broadcast_to(x, logits.shape)).sum(-1)
        if self.num_samples == 1:
            kl = 0.5 * (mean**2 + jnp.exp(2 * log_scale) - 2 * log_scale - 1).sum(-1)
            return (log_p[0] - kl).mean()
        log_w = log_p + (0.5 * noise**2 - 0.5 * z**2 + log_scale).sum(-1)
        return (jax.nn.logsumexp(log_w, axis=0) - jnp.log(self.num_samples)).mean()


def tell(**what):
    print(json.dumps(what), flush=True)


def main():
    work, path, unit = sys.argv[1], sys.argv[2], int(sys.argv[3])
    hidden_sizes, num_latents, batch_size, num_samples, activation, dynamic = WORKS[work]
    with np.load(path) as data:
        train, test = (data[name].reshape(len(data[name]), -1).astype(np.float32) / 255 for name in ("train", "test"))
    model = VAE(hidden_sizes, num_latents, num_samples, activation, train.mean(0))
    key = jax.random.key(0)
    params = model.init(key, train[:2], key)
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(1e-3))
    shuffle = np.random.default_rng(0)

    @jax.jit
    def train_step(state, x, key):
        key, key_noise, key_pixels = jax.random.split(key, 3)
        if dynamic:
            x = jax.random.bernoulli(key_pixels, x).astype(x.dtype)
        gradient = jax.grad(lambda params: -state.apply_fn(params, x, key_noise))(state.params)
        return state.apply_gradients(grads=gradient), key

    def batches():
        while True:
            order = shuffle.permutation(len(train))
            for first in range(0, len(train) - batch_size + 1, batch_size):
                yield train[order[first : first + batch_size]]

    source = batches()

    def steps(number):
        nonlocal state, key
        for _ in range(number):
            state, key = train_step(state, next(source), key)
        jax.block_until_ready(state)

    versions = {"jax": jax.__version__, "flax": flax.__version__}
    about = {"versions": versions, "threads": len(os.sched_getaffinity(0)), "precision": "float32"}
    steps(1)
    tell(first_step=True, **about)
    if work == "start":
        return
    steps(unit)
    tell(ready=True, **about)
    for _ in sys.stdin:
        began = time.perf_counter()
        steps(unit)
        tell(seconds=time.perf_counter() - began)
    held_out = jax.jit(lambda x, key: model.apply(state.params, x, key))
    parts = [test[first : first + 100] for first in range(0, len(test), 100)]
    values = [len(x) * float(held_out(x, jax.random.fold_in(key, i))) for i, x in enumerate(parts)]
    tell(held_out=sum(values) / len(test))


if __name__ == "__main__":
    main()
