"""Train many runs as few programs: every combination of the values of some flags of experiments.train.

    python -m experiments.sweep --preset=digits --sweep=seed=0:8 --sweep=learning_rate=log:1e-4:1e-2:5
    python -m experiments.sweep --sweep=objective=elbo,iwae --sweep=latent_dim=2,10,50 --sweep=hidden_sizes=200,200/400
    python -m experiments.sweep --sweep=seed=0:100 --sweep=learning_rate=log:1e-4:1e-2:50 --random=64
    python -m experiments.sweep --zip --sweep=batch_size=50,100,200 --sweep=learning_rate=5e-4,1e-3,2e-3
    python -m experiments.sweep --search=tpe --trials=256 --sweep=learning_rate=log:1e-4:1e-2 --sweep=latent_dim=2:51
    python -m experiments.sweep --workdir=sweeps/x          # resumes sweeps/x
    python -m experiments.sweep --workdir=sweeps/x --sweep=seed=0:16 --sweep=learning_rate=log:1e-4:1e-2:5   # grows it
    srun --ntasks=8 python -m experiments.sweep --sweep=seed=0:64 --workdir=sweeps/x --distributed   # on several hosts

Runs that differ only in seed or in numbers train as one program. Runs that need other programs train in turn. Each
leaves a run folder under <workdir>/runs, for experiments.evaluate and experiments.generate; the sweep leaves
results.csv and pictures. With --search, a sampler proposes the values of each round of trials and learns from the
rounds before. Workers on several machines join one search with --storage=postgresql://… and the same other flags.

Ctrl-C or SIGTERM saves and exits with code 75. A run that diverges does not stop the others.

How long 64 runs take, beside a PyTorch script of two processes: python -m experiments.benchmark --works=sweep
--peers=torch.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from absl import flags

from experiments.command import notes, profiling, script, search_asked, searching, setting_table
from experiments.command.boards import SweepBoard
from experiments.command.stopping import Stopped, StopRequest
from experiments.flags import axes, configuration, options
from experiments.flags.configuration import RunFlags
from experiments.flags.parsing import UsageError, choice, number
from experiments.flags.points import Asked, GrownRuns, configure, grown, label, loader

STRATEGIES = ("auto", "vmap", "map", "loop")
SAMPLERS, PRUNERS, METRICS = ("tpe", "cmaes", "random"), ("none", "median", "hyperband"), ("bound", "elbo")
FIXED = ("zip", "random", "strategy")  # a sweep that grows keeps them
SETTINGS = "settings.csv"  # in the sweep's folder, a line for each setting
ASKED = ("sweep", *FIXED)  # these and the flags of the runs define a sweep


def define_flags() -> None:
    options.define_config()
    flags.DEFINE_multi_string(
        "sweep", [], "an axis, name=values: seed=0:8, learning_rate=log:1e-4:1e-2:5, beta=linear:0:4:5, "
        "objective=elbo,iwae, hidden_sizes=200,200/400; repeat the flag for a grid",
    )  # fmt: skip
    flags.DEFINE_bool("zip", False, "pair the values of the axes instead of a grid")
    number("random", None, "train this many points of the grid, a fixed random choice", least=1, integer=True)
    choice("strategy", "auto", STRATEGIES, "runs of one program at once, in turn, or one call for each; auto measures")
    flags.DEFINE_string("workdir", None, "the sweep's folder; a sweep in it is resumed (default: a new one in sweeps/)")
    options.define_distributed()
    options.define_profile()
    number("devices", 0, "devices that share out the runs; 0: all there are, on a CPU one for each core",
           least=0, most=1024, integer=True)  # fmt: skip
    number("save_every", 30, "seconds between checkpoints, at least", least=0)
    flags.DEFINE_bool("figures", True, "draw the results once training is done")
    choice("search", None, SAMPLERS, "this sampler proposes the values; axes may be ranges, as in log:1e-4:1e-2")
    number("trials", 64, "search: runs, over all workers; a pruned or diverged one counts", least=1, integer=True)
    number("population", 16, "search: trials that are proposed and trained together", least=1, integer=True)
    choice("pruner", "median", PRUNERS, "search: which runs end before --epochs")
    choice("metric", None, METRICS, "search: the validation value to maximise (default: the objective's own bound, or "
           "the ELBO if an axis changes what the bound means)")  # fmt: skip
    flags.DEFINE_string("storage", None, "search: a journal file or a database, postgresql://user@host/name, that "
                        "several workers share (default: a journal in the sweep's folder)")  # fmt: skip
    flags.DEFINE_string("study", None, "search: its name in the storage (default: data set and objective)")


def main(stop: StopRequest) -> int:
    flags = options.read()
    profiling.check(flags)
    workdir = script.given_workdir(flags.values["workdir"])
    stored = stored_sweep(workdir)
    if flags.values["search"] or stored.get("search"):
        return searching.main(stop, flags, workdir, stored)
    search_asked.check_absent(flags)
    base = configuration.settle(flags, stored.get("flags", {}))
    kept = configuration.stored_own(workdir / "sweep.json", stored, ASKED) if workdir is not None and stored else {}
    asked = flags.among(ASKED, kept)
    if not asked["sweep"]:
        raise UsageError("nothing is swept; write --sweep=name=values, as in --sweep=seed=0:8")
    check_fixed(workdir, stored, asked)
    if workdir is not None and stored:
        stored |= {"runs": configuration.stored_points(workdir / "sweep.json", stored["runs"])}
    points = axes.points(axes.parse(asked["sweep"], flags.given), zipped=asked["zip"], subset=asked["random"])
    from experiments.command import devices
    from vae import hosts
    from vae.runs.config import doubt_bits
    from vae.runs.folder import lock
    from vae.sweeps import planning, sweep
    from vae.sweeps.sweep_file import SWEEP

    num_devices = flags.values["devices"]
    if "devices" in stored and "devices" not in flags.given:
        num_devices = configuration.stored_value("devices", stored["devices"])
    available = devices.start(
        num_devices, flags.values["data_dir"], one_per_core=True, distributed=flags.values["distributed"]
    )
    planning.check_strategy(asked["strategy"])
    load = loader(flags.folders, workdir)
    grown_runs = grown(configure(points, base, load), stored, base, load)
    runs = grown_runs.runs
    check_resumed(workdir, stored, runs, base.values, load)
    if workdir is not None and stored:
        doubt_bits(workdir / SWEEP)
    grouped = []
    for part in grown_runs.of_parts():
        of_part = planning.grouped({name: one.config for name, one in part.items()}, load)
        sweep.check(of_part, available, begun=part.keys() <= stored.get("runs", {}).keys())
        grouped += of_part
    workdir = Path(hosts.agreed(lambda: str(workdir or script.new_workdir("sweep", "sweeps"))))
    with lock(workdir):
        stop.file = workdir / SWEEP
        hosts.agreed(lambda: begin(workdir, stored | asked, base, grown_runs, available, load))
        if (new := len(runs) - len(stored.get("runs", runs))) > 0:
            print(f"the sweep grows: {new} new runs beside the {len(runs) - new} that it had")
        notes.describe(len(runs), len(grouped), available)
        notes.show((one.config for one in runs.values()), base.values["binarization"])
        labels = {name: label(one.values) for name, one in runs.items()}
        with profiling.Profile(flags, workdir) as profile, SweepBoard(labels) as board, stop.polled():
            finished = sweep.sweep(
                workdir,
                grouped,
                devices=available,
                strategy=asked["strategy"],
                save_every=flags.values["save_every"],
                report=profile.watching(board.update),
                should_stop=stop.requested,
            )
        if not finished:
            raise Stopped
        hosts.agreed(lambda: conclude(workdir, grouped, figures=flags.values["figures"]))
    print(workdir)
    return 0


def begin(workdir: Path, about: dict[str, Any], base: RunFlags, grown_runs: GrownRuns, available, load) -> None:
    """Write sweep.json, and the config.json of every run that has none yet."""
    from vae import durable, hosts
    from vae.runs import fingerprint
    from vae.runs.config import provenance, with_history, write_config
    from vae.runs.files import write_json
    from vae.runs.folder import CONFIG
    from vae.sweeps import folders, planning
    from vae.sweeps.sweep_file import SWEEP

    of_each, (runs, parts) = len(available) // hosts.num_processes(), grown_runs
    values = {name: one.values for name, one in runs.items()}
    now = about | {"devices": of_each, "argv": sys.argv, "flags": base.values, "runs": values, "parts": parts}
    write_json(workdir / SWEEP, with_history(about, now | provenance()))
    folders.move_data(workdir, {name: one.config.dataset for name, one in runs.items()})
    for name, one in runs.items():
        folder = workdir / planning.RUNS / name
        durable.make_folder(folder)
        if not (folder / CONFIG).exists():
            about = {"data": fingerprint.of(load(one.config)), "devices": list(map(str, available))}
            write_config(folder, one.config, flags=one.flags, argv=sys.argv, **about)


def conclude(workdir: Path, grouped, *, figures: bool) -> None:
    """Write and print the results of the runs; raises TrainingFailed if none of them stayed finite."""
    from vae.sweeps import planning, results
    from vae.training import record

    table, rows, runs = results.write(workdir), results.rows(workdir), workdir / planning.RUNS
    if not any(row["status"] == results.FINISHED for row in rows):
        raise record.TrainingFailed(
            f"none of the {len(rows)} runs stayed finite; what led to it is in {runs}/*/{record.FAILURE}; "
            "use lower values of --learning_rate or --max_gradient_norm"
        )
    configs = {name: config for group in grouped for name, config in group.configs.items()}
    not_tested = results.not_tested(workdir, rows, configs)
    best = summarize(workdir, rows, configs)
    notes.show_runs("diverged", [row["run"] for row in rows if row["status"] == results.DIVERGED], len(rows))
    notes.show_runs("test bound not finite", not_tested, len(rows))
    if figures:
        from experiments.pictures import sweep_pictures

        for path in sweep_pictures.draw(workdir):
            print(f"picture: {path}")
    print(f"results: {table}")
    folder = best or runs / next(iter(configs))
    of = "the best setting" if best else "the sweep"
    print(f"next: python -m experiments.evaluate --workdir={shlex.quote(str(folder))}   # a run of {of}")
    print(f"      python -m experiments.evaluate --workdir={shlex.quote(str(workdir))}   # all runs, by setting")


def stored_sweep(workdir: Path | None) -> dict[str, Any]:
    """The sweep.json in `workdir`; empty if there is none. UsageError if `workdir` holds a run or a comparison."""
    from vae.runs.folder import CHECKPOINTS, CONFIG
    from vae.sweeps.sweep_file import PLAN, SWEEP, read_sweep

    if workdir is not None and (workdir / PLAN).exists():
        raise UsageError(f"{workdir} holds a comparison, which experiments.compare resumes; choose another --workdir")
    if workdir is None or not (workdir / SWEEP).exists():
        if workdir is not None and ((workdir / CONFIG).exists() or (workdir / CHECKPOINTS).exists()):
            raise UsageError(f"{workdir} holds a single run, which experiments.train resumes; choose another --workdir")
        return {}
    stored = read_sweep(workdir)
    if "sweep" not in stored:
        raise UsageError(
            f"{workdir} holds the runs of a comparison whose {PLAN} is lost; put it back, or choose another --workdir"
        )
    return stored


def check_fixed(workdir: Path | None, stored: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raises UsageError for a flag of the sweep that a sweep in `workdir` keeps, however it grows."""
    differing = [
        f"--{name} is {stored[name]}, not {asked[name]}" for name in FIXED if stored and stored[name] != asked[name]
    ]
    if differing:
        raise UsageError(f"{workdir} holds another sweep: {'; '.join(differing)}; choose another --workdir")


def check_resumed(
    workdir: Path | None, stored: dict[str, Any], runs: dict[str, Asked], values: dict[str, Any], load
) -> None:
    """Raises RunError if `workdir` holds another sweep, also if its sweep.json is lost."""
    if workdir is None:
        return
    from vae.runs.config import ENDS
    from vae.runs.files import RunError
    from vae.runs.folder import CONFIG
    from vae.sweeps import folders, planning

    if stored:
        before = configuration.since_then() | stored.get("flags", {})
        # By the flags: a run may have been trained for longer.
        differing = [
            f"--{name} is {before.get(name)}, not {values[name]}" for name in ENDS if before.get(name) != values[name]
        ]
        for name, one in runs.items():
            folder = workdir / planning.RUNS / name
            if (folder / CONFIG).exists() and (found := folders.differences(folder, one.config, load)):
                differing += found
                break
        if differing:
            raise RunError(f"{workdir} holds another sweep: {'; '.join(differing)}; choose another --workdir")
    wanted = {name: one.config for name, one in runs.items()}
    folders.check(workdir, wanted, load, recorded=bool(stored), may_be_longer=bool(stored))


def summarize(workdir: Path, rows: list[dict[str, Any]], configs: Mapping[str, Any]) -> Path | None:
    """Print each ranking by setting, and write settings.csv; a run of the best setting of the first ranking.

    None if no setting is named the best one: there are no validation images, or no run is finite.
    """
    from vae.judging import by_setting
    from vae.sweeps import planning, ranking, results
    from vae.sweeps.sweep_file import read_sweep

    values, best, lines = read_sweep(workdir)["runs"], None, []
    for one in results.ranked(rows, configs):
        if one.ranking.changing:
            print(f"{ranking.reason(one.ranking.changing)}: runs are compared by the ELBO")
        groups = setting_table.groups_of(workdir, values, {name: configs[name] for name in one.ranking.names})
        scores = {workdir / planning.RUNS / name: score for name, score in one.scores.items()}
        headline = f"{one.split}_{'elbo' if one.ranking.metric == 'elbo' else one.ranking.objective}"
        found = by_setting.table(groups, {headline: scores})
        what = f"{one.split} {one.ranking.title}"
        of_best = " at the best epoch of each run (--patience)" * any(group.config.patience for group in groups)
        print(f"\n{what}{of_best} in nats per image, mean ± standard error over seeds:")
        setting_table.print_table(found, {headline: what})
        lines += by_setting.columns(found, {group.label: values[_first(group)] for group in groups})
        if one.split == "test":
            print("no setting is named the best one: test images choose nothing; hold some out with --validation")
        elif math.isfinite(found.rows[0].numbers[headline][0]):
            best = best or found.rows[0].group.folders[min(found.rows[0].group.folders)]
            if len(found.rows) > 1:
                print(f"best setting by {what}: {setting_table.named(found)}")
            if found.verdict:
                print(found.verdict)
    print(f"\nsettings: {setting_table.write(workdir / SETTINGS, lines)}")
    return best


def _first(group) -> str:
    """The name of the run of a setting's first seed."""
    return next(iter(group.folders.values())).name


if __name__ == "__main__":
    script.run(define_flags, main)
