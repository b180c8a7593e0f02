"""A VAE as Keras users write it: a subclass with its own train_step, on TensorFlow, with jit_compile.

    python keras_vae.py WORK DATA.npz UNIT

A unit is an epoch, for each line on standard input; the answer is a line of JSON with its seconds.
DATA.npz: train and test, uint8 [N, H, W, C]. At the end of input: the held-out bound, in nats per image.
"""

import json
import os
import sys
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

#         hidden size, latents, batch
WORKS = {"tutorial": (256, 2, 32), "mlp400": (400, 20, 128), "start": (400, 20, 128)}
ABOUT = {
    "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
    "threads": len(os.sched_getaffinity(0)),
    "precision": "float32",
}


class VAE(keras.Model):
    def __init__(self, mean_image, hidden_size, num_latents):
        super().__init__()
        self.hidden, self.posterior = layers.Dense(hidden_size, activation="relu"), layers.Dense(2 * num_latents)
        self.hidden_of_z = layers.Dense(hidden_size, activation="relu")
        # The output starts at the mean image, as in the code of Burda et al. (2016).
        mean = np.clip(mean_image, 1e-3, 1 - 1e-3)
        logit = np.log(mean / (1 - mean))
        self.logits = layers.Dense(len(mean), bias_initializer=lambda shape, dtype: ops.convert_to_tensor(logit, dtype))
        self.seed = keras.random.SeedGenerator(0)
        self.bound = keras.metrics.Mean(name="bound")

    def call(self, x):
        """The bound of each example."""
        mean, log_scale = ops.split(self.posterior(self.hidden(x)), 2, axis=-1)
        z = mean + ops.exp(log_scale) * keras.random.normal(ops.shape(mean), seed=self.seed)
        logits = self.logits(self.hidden_of_z(z))
        log_p = -ops.sum(ops.binary_crossentropy(x, logits, from_logits=True), -1)
        return log_p - 0.5 * ops.sum(ops.square(mean) + ops.exp(2 * log_scale) - 2 * log_scale - 1, -1)

    def train_step(self, x):
        with tf.GradientTape() as tape:
            loss = -ops.mean(self(x))
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        self.bound.update_state(-loss)
        return {"bound": self.bound.result()}

    def test_step(self, x):
        self.bound.update_state(self(x))
        return {"bound": self.bound.result()}

    @property
    def metrics(self):
        return [self.bound]


class Told(keras.callbacks.Callback):
    """Tells how long an epoch took, and waits to be asked for the next one."""

    def __init__(self, only_first_step):
        super().__init__()
        self.only_first_step, self.steps = only_first_step, 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps == 1:
            tell(first_step=True, **ABOUT)
            if self.only_first_step:
                sys.stdout.flush()
                os._exit(0)

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self.began
        if epoch == 0:
            tell(ready=True, **ABOUT)
        else:
            tell(seconds=seconds)
        self.model.stop_training = not sys.stdin.readline()


def tell(**what):
    print(json.dumps(what), flush=True)


def main():
    work, path = sys.argv[1], sys.argv[2]
    hidden_size, num_latents, batch_size = WORKS[work]
    keras.utils.set_random_seed(0)
    with np.load(path) as data:
        train, test = (data[name].reshape(len(data[name]), -1).astype(np.float32) / 255 for name in ("train", "test"))
    model = VAE(train.mean(0), hidden_size, num_latents)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=True)
    model.fit(train, batch_size=batch_size, epochs=10**6, verbose=0, callbacks=[Told(work == "start")])
    tell(held_out=model.evaluate(test, batch_size=100, verbose=0, return_dict=True)["bound"])


if __name__ == "__main__":
    main()
