"""Train a VAE, or resume a run that was stopped.

    python -m experiments.train --preset=tutorial
    python -m experiments.train --dataset=mnist --objective=elbo --hidden_sizes=200,200 --latent_dim=50
    python -m experiments.train --workdir=runs/x            # resumes runs/x
    python -m experiments.train --workdir=runs/x --epochs=40   # trains a finished run for longer
    python -m experiments.train --dataset=mnist --epochs=500 --patience=10   # ends when validation gets no better
    srun --ntasks=8 python -m experiments.train --batch_size=800 --workdir=runs/x --distributed   # on several hosts

The tutorial preset takes about half a minute on two CPU cores and reaches a test ELBO of about −153 nats.
Ctrl-C or SIGTERM saves and exits with code 75.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from experiments.command import notes, profiling, script
from experiments.command.progress import LiveLine, pace
from experiments.command.stopping import Stopped, StopRequest
from experiments.flags import configuration, options
from vae.places import expanded


def define_flags() -> None:
    options.define_all()


def main(stop: StopRequest) -> int:
    flags = options.read()
    workdir = script.given_workdir(flags.values["workdir"])
    run = configuration.resolve(flags, workdir)
    asked = run.values
    profiling.check(flags)
    from experiments.command import devices
    from vae import hosts
    from vae.runs import checkpoint, fingerprint
    from vae.runs.config import write_config
    from vae.runs.folder import CHECKPOINTS, CONFIG, lock
    from vae.training import fit, resuming, start

    available = devices.start(asked["devices"], flags.values["data_dir"], distributed=flags.values["distributed"])
    dataset = flags.folders.load(asked["dataset"], asked["validation"], asked["image_size"])
    if workdir is not None and (workdir / CONFIG).exists():
        dataset = options.checked(workdir, dataset)
    config = run.config(dataset)
    start.check(workdir, config, dataset, available)
    profiling.check_steps_left(flags, workdir, config)
    name = f"{dataset.name.split('/')[-1]}-{config.settings.objective}"
    workdir = Path(hosts.agreed(lambda: str(workdir or script.new_workdir(name))))
    with lock(workdir):
        stop.file = workdir / CONFIG
        resuming.check(workdir, config, dataset)
        about = {
            "data": fingerprint.of(dataset),
            "flags": asked,
            "argv": sys.argv,
            "devices": [str(d) for d in available],
        }
        write_config(workdir, config, **about)
        if saved := checkpoint.steps(workdir / CHECKPOINTS):
            epoch = saved[-1] / (len(dataset.train.images) // config.settings.batch_size)
            print(f"resumes {workdir} at epoch {epoch:.2f} of {config.epochs}")
        elif config.init_from is not None:
            notes.show_best(expanded(config.init_from))
        describe(config, dataset, available)
        notes.show([config], asked["binarization"])
        with profiling.Profile(flags, workdir) as profile, ProgressLine() as progress, stop.polled():
            outcome = fit.fit(
                workdir,
                config,
                dataset,
                devices=available,
                keep_last=asked["keep_last"],
                keep_best=asked["keep_best"],
                save_every=asked["save_every"],
                report=profile.watching(progress.update),
                should_stop=stop.requested,
            )
        if not outcome.finished:
            raise Stopped
        notes.show_end(config, outcome)
        print(
            "test: " + ", ".join(f"{name} {value:.2f}" for name, value in outcome.test.items()) + "  (nats per image)"
        )
        if dataset.test.images.dtype == "uint8":
            notes.show_elbo(outcome.test["reconstruction"] - outcome.test["kl"], config.settings)
        for path in hosts.agreed(lambda: drawn(workdir, dataset)) if asked["figures"] else []:
            print(f"picture: {path}")
    quoted = shlex.quote(str(workdir))
    print(f"next: python -m experiments.evaluate --workdir={quoted}   # log-likelihood on the test set")
    print(f"      python -m experiments.generate --workdir={quoted}   # samples, reconstructions, morphs")
    print(workdir)
    return 0


def drawn(workdir: Path, dataset) -> list[str]:
    """Draw the pictures and return their paths."""
    from experiments.pictures import run_pictures

    return list(map(str, run_pictures.after_training(workdir, dataset)))


def describe(config, dataset, devices) -> None:
    """Print what is about to be trained, in two lines."""
    s = config.settings
    height, width, channels = s.image_shape
    sizes = ", ".join(
        f"{len(split.images)} {name}" for name, split in zip(dataset._fields[1:4], dataset[1:4], strict=True)
    )
    print(f"data: {dataset.name}, {sizes} images of {height}x{width}x{channels}, binarization {s.binarization}")
    layers = [height * width * channels, *s.channels, *s.hidden_sizes, s.latent_dim]
    if s.upper_latent_dim:
        layers += [*s.upper_hidden_sizes, s.upper_latent_dim]
    kinds = f"posterior {s.posterior}, prior {s.prior}, likelihood {s.likelihood}"
    print(
        f"model: {s.network} {'-'.join(map(str, layers + layers[-2::-1]))}, {s.activation}, {kinds}"
        f"{f', given {s.num_classes} classes' if s.num_classes else ''}; "
        f"objective {s.objective}, K = {s.num_samples}; {len(devices)} {devices[0].platform} device(s)"
    )


class ProgressLine(LiveLine):
    """A live line on a terminal, and a line for every epoch anywhere. Bounds in nats per image."""

    def update(self, progress) -> None:
        """Show what `vae.training` reports."""
        bounds = f"train {progress.train_bound:.2f}"
        if progress.held_out_bound is not None:
            bounds += f", {progress.held_out_split} {progress.held_out_bound:.2f}"
        done = f"epoch {progress.epoch:.0f}/{progress.num_epochs}: {bounds} nats{pace(progress)}"
        self.show(
            f"epoch {progress.epoch:.2f}/{progress.num_epochs}: {bounds} nats",
            done if progress.epoch_ended else None,
            progress.step,
            total=progress.num_steps,
            unit=" steps",
            bar_format="{desc} |{bar:20}| {rate_fmt}, {remaining} left",
        )


if __name__ == "__main__":
    script.run(define_flags, main)
