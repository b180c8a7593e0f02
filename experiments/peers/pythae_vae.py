"""A VAE as pythae's users write it: its model, its trainer, networks of their own.

    python pythae_vae.py WORK DATA.npz UNIT

A unit is an epoch, for each line on standard input; the answer is a line of JSON with its seconds.
DATA.npz: train and test, uint8 [N, H, W, C]. At the end of input: the held-out bound, in nats per image.
"""

import importlib.metadata
import json
import logging
import os
import sys
import tempfile
import time

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback

#         hidden size, latents, batch
WORKS = {"tutorial": (256, 2, 32), "mlp400": (400, 20, 128)}


class Encoder(BaseEncoder):
    def __init__(self, num_pixels, hidden_size, num_latents):
        super().__init__()
        self.latent_dim = num_latents
        self.hidden = torch.nn.Linear(num_pixels, hidden_size)
        self.mean, self.log_variance = (torch.nn.Linear(hidden_size, num_latents) for _ in range(2))

    def forward(self, x):
        hidden = torch.relu(self.hidden(x))
        return ModelOutput(embedding=self.mean(hidden), log_covariance=self.log_variance(hidden))


class Decoder(BaseDecoder):
    def __init__(self, mean_image, hidden_size, num_latents):
        super().__init__()
        self.hidden = torch.nn.Linear(num_latents, hidden_size)
        self.pixels = torch.nn.Linear(hidden_size, len(mean_image))
        # The output starts at the mean image, as in the code of Burda et al. (2016).
        self.pixels.bias.data.copy_(torch.logit(mean_image.clamp(1e-3, 1 - 1e-3)))

    def forward(self, z):
        return ModelOutput(reconstruction=torch.sigmoid(self.pixels(torch.relu(self.hidden(z)))))


class EndOfInput(Exception):
    pass


class Told(TrainingCallback):
    """Tells how long an epoch took, and waits to be asked for the next one."""

    epochs = 0

    def on_epoch_begin(self, *_, **__):
        self.began = time.perf_counter()

    def on_epoch_end(self, *_, **__):
        seconds = time.perf_counter() - self.began
        if self.epochs == 0:
            versions = {"pythae": importlib.metadata.version("pythae"), "torch": torch.__version__}
            tell(ready=True, versions=versions, threads=torch.get_num_threads(), precision="float32")
        else:
            tell(seconds=seconds)
        self.epochs += 1
        if not sys.stdin.readline():
            raise EndOfInput


def tell(**what):
    print(json.dumps(what), flush=True)


def main():
    work, path = sys.argv[1], sys.argv[2]
    hidden_size, num_latents, batch_size = WORKS[work]
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with np.load(path) as data:
        train, test = (torch.from_numpy(data[name]).flatten(1).float() / 255 for name in ("train", "test"))
    config = VAEConfig(input_dim=(train.shape[-1],), latent_dim=num_latents, reconstruction_loss="bce")
    encoder = Encoder(train.shape[-1], hidden_size, num_latents)
    model = VAE(config, encoder=encoder, decoder=Decoder(train.mean(0), hidden_size, num_latents))
    with tempfile.TemporaryDirectory() as folder:
        chosen = BaseTrainerConfig(
            output_dir=folder, num_epochs=10**6, learning_rate=1e-3, per_device_train_batch_size=batch_size
        )
        trainer = BaseTrainer(
            model, BaseDataset(train, torch.zeros(len(train))), training_config=chosen, callbacks=[Told()]
        )
        try:
            trainer.train()
        except EndOfInput:
            model.eval()
    with torch.no_grad():
        parts = test.split(100)
        tell(held_out=-sum(len(x) * float(model({"data": x}).loss) for x in parts) / len(test))


if __name__ == "__main__":
    main()
