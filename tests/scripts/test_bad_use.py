"""A table of wrong commands, made from the flags of each script: exit code 1, one line for the user, nothing written.

All in this process; how a process ends is in test_ends.py.
"""

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl import flags

from tests import script_calls
from vae.objectives.table import OBJECTIVES
from vae.options import Option, flattened, read
from vae.rules import Choice
from vae.runs.folder import CHECKPOINTS, CONFIG
from vae.settings import PROGRAM
from vae.sweeps.sweep_file import PLAN, SWEEP

SCRIPTS = sorted(path.stem for path in (Path(script_calls.script.__file__).parents[1]).glob("[a-z]*.py"))
HUGE = "9" * 22
# What gets a script beyond its own first question, in the folder of `folder`.
BEGUN = {
    "train": ["--preset=digits"],
    "sweep": ["--preset=digits", "--sweep=seed=0:2"],
    "compare": ["--preset=digits", "--objectives=elbo,iwae:num_samples=2"],
    "evaluate": ["--workdir=run"],
    "generate": ["--workdir=run"],
    "gradients": ["--dataset=digits"],
    "benchmark": [],
    "growth": [],
    "comparison_validity": [],
    "runs": [],
    "data": ["--list"],
    "soak": [],
    "reproduce": ["--table=burda2016", "--cells=mnist/1/vae/1"],
}


def wrong_values(flag: flags.Flag) -> list[str]:
    """Texts that no flag of this kind may have, as its parser says what kind it is of."""
    kind = flag.parser.syntactic_help or type(flag.parser).__name__
    if isinstance(flag.parser, flags.IntegerParser):
        return ["nan", "inf", "", "x", "1.5", HUGE, f"-{HUGE}"]
    if isinstance(flag.parser, flags.FloatParser):
        return ["nan", "inf", "", "x", "1,2", "1e300", "-1e300"]
    if isinstance(flag.parser, flags.EnumParser):
        return [f"{flag.parser.enum_values[0]}x", flag.parser.enum_values[-1].upper(), "", "-1"]
    if flag.boolean:
        return ["3", "", "maybe"]
    return ["", ","] if "list" in kind else [""]


def of_each_flag(name: str) -> Iterator[list[str]]:
    """Every flag of a script with every wrong value and without a value; of each kind of flag, one misspelt."""
    of_train = {flag.name for flag in script_calls.defined("train")}
    own = [flag for flag in script_calls.defined(name) if name == "train" or flag.name not in of_train]
    for flag in own:
        yield from ([f"--{flag.name}={value}"] for value in wrong_values(flag))
        yield [f"--no{flag.name}=3"] if flag.boolean else [f"--{flag.name}"]
    # absl looks for what is meant: 5 ms each.
    for flag in {type(flag.parser): flag for flag in own}.values():
        yield [f"--{flag.name}x=1"]
        if not flag.boolean:
            yield [f"--no{flag.name}"]


def without_effect() -> Iterator[list[str]]:
    """Every option with the choices by default, if none of them reads it, or with the value that keeps it idle."""
    options = flattened(PROGRAM)
    idle = options.keys() - read(PROGRAM, {name: one.default for name, one in options.items()})
    for name in sorted(idle):
        yield [f"--{name}={text_of(options[name])}"]
    for objective, row in OBJECTIVES.items():
        if unread := sorted(idle - flattened(row.options).keys()):
            yield [f"--objective={objective}", f"--{unread[0]}={text_of(options[unread[0]])}"]


def text_of(option: Option) -> str:
    """A value that is allowed, as a flag's text."""
    if option.default is None or option.default == ():
        return option.rule.names[0] if isinstance(option.rule, Choice) else "1"
    return ",".join(map(str, option.default)) if isinstance(option.default, tuple) else str(option.default)


def in_general(name: str) -> Iterator[list[str]]:
    """What no script takes."""
    for given in (["x"], ["x", "--", "y"], ["--unknown"], ["--unknown=3"], ["-x"], ["--no"], ["--=3"], ["--seed", "x"]):
        yield [*BEGUN[name], *given]


def of_script(name: str) -> Iterator[list[str]]:
    """What only the one script can be asked."""
    begun = BEGUN[name]
    if name in ("train", "sweep", "compare"):
        yield [*begun, "--preset=digits"]
        yield [*begun, "--preset=tutorial"]
    if name in ("train", "sweep", "compare", "gradients"):
        yield from ([*begun, "--dataset=" + path] for path in ("digit", "./none.npz", "./file", "./empty", "./run"))
        yield [*begun, "--manual_dir=none"]
        yield [*begun, "--image_size=100000"]
        yield [*begun, f"--num_samples={HUGE}"]
    if name in (
        "train",
        "sweep",
        "compare",
        "comparison_validity",
        "gradients",
        "soak",
        "benchmark",
        "growth",
        "reproduce",
    ):
        yield [*begun, "--workdir=file"]
        yield [*begun, "--workdir=file/below"]
    if name in ("evaluate", "generate"):
        yield from (
            [f"--workdir={path}"] for path in ("none", "file", "empty", "sweep", "lost", "plan", "run/x", "damaged")
        )
        yield []
        yield [*begun, "--checkpoint=best-of-all"]
        yield [*begun, f"--checkpoint={HUGE}"]
    if name == "train":
        yield from ([*begun, "--workdir=" + path] for path in ("sweep", "lost", "damaged"))
        yield from without_effect_with(begun)
        yield ["--workdir=mistyped"]
        yield ["--workdir=mistyped", "--epochs=40"]
        for given in (
            ["--batch_size=1295"], ["--validation=1437"], ["--validation=9999"], ["--latent_dim=1000000000000"],
            ["--init_from=none"], ["--init_from=empty"], ["--batch_size=32", "--devices=3"], ["--devices=500"],
            ["--objective=iwae", "--num_samples=1000000000000"], ["--objective=info", "--batch_size=1"],
            ["--objective=rws"], ["--objective=dip_i", "--estimator=dreg"],
            ["--validation=0", "--keep_best=2"], ["--schedule=stages", "--stage_epochs=1,2"],
            ["--hidden_sizes=1000000000,1000000000"], ["--objective=free_bits", "--free_bits_group_size=3"],
            ["--batch_size=1000000000"], ["--epochs=1000001"],
        ):  # fmt: skip
            yield [*begun, *given]
    if name == "sweep":
        for spec in ("x", "=", "seed", "seed=", "seed=0:", "seed=3:1", "seed=0:1:0", "seed=0:100000", "none=1",
                     "seed=1,1", "learning_rate=log:0:1:3", "learning_rate=linear:1:nan:3",
                     "learning_rate=1e-3,x", "hidden_sizes=3,x/4", "objective=elbo,elbow", "beta=1,2", "=seed=1",
                     "seed=0:2:1:1", f"seed={HUGE}", "workdir=x,y", "devices=1,2", "preset=digits"):  # fmt: skip
            yield ["--preset=digits", "--sweep=" + spec]
            yield ["--preset=digits", "--search=random", "--trials=1", "--sweep=" + spec]
        yield from ([*begun, "--workdir=" + path] for path in ("run", "lost", "plan"))
        yield []
        yield [*begun, "--sweep=seed=0:2"]
        yield [*begun, "--seed=3"]
        yield [*begun, "--zip", "--sweep=latent_dim=1,2,3"]
        yield [*begun, "--zip", "--random=1"]
        yield [*begun, "--random=2"]
        yield [*begun, "--devices=500"]
        yield from ([*begun, f"--{flag}=1"] for flag in ("trials", "population"))
        yield from ([*begun, f"--{flag}=x"] for flag in ("storage", "study"))
        search = ["--preset=digits", "--search=tpe", "--sweep=learning_rate=log:1e-4:1e-2"]
        yield [*search, "--zip"]
        yield [*search, "--random=3"]
        yield [*search, "--distributed"]
        yield [*search, "--storage=postgresql://nobody:secret@"]
        yield [*search, "--storage=none://x"]
        yield [*search, "--storage="]
        yield [*search, "--study="]
        yield [*search, "--storage=empty/none/journal"]
        yield [*search, "--search=cmaes", "--sweep=objective=elbo,iwae"]
        yield ["--preset=digits", "--search=cmaes", "--sweep=objective=elbo,iwae"]
        yield ["--preset=digits", "--search=tpe", "--sweep=epochs=1:3"]
    if name == "compare":
        for objectives in (",", " ", "elbo", "elbo,elbo", "elbo,elbow", "elbo,iwae:num_samples",
                           "elbo,iwae:num_samples=x", "elbo,iwae:seed=1", "elbo,iwae:none=1", 
                           "elbo,beta:beta=1:beta=2", "elbo,iwae:num_samples=",
                           "elbo,:", "elbo,iwae:", "elbo,=", "elbo,iwae:likelihood=normal",
                           f"elbo,iwae:num_samples={HUGE}", "elbo,iwae:scale=1"):  # fmt: skip
            yield ["--preset=digits", "--objectives=" + objectives]
        for tune in ("x", "=", "learning_rate", "learning_rate=", "learning_rate=x", "learning_rate=1,1", "seed=1,2",
                     "none=1", "epochs=1,2", "learning_rate=1e-3,,"):  # fmt: skip
            yield [*begun, "--tune=" + tune]
        yield [*begun, "--tune=beta=1,2", "--tune=beta=3"]
        yield [*begun, "--tune=learning_rate=1e-3,2e-3", "--validation=0"]
        yield from ([*begun, "--workdir=" + path] for path in ("run", "sweep", "lost"))
        yield from ([f"--runs={path}"] for path in ("none", "file", "empty", "run", "damaged", "run,run"))
        yield ["--runs=run", "--objectives=elbo"]
        yield ["--runs=run", "--seeds=3"]
        yield ["--runs=run", "--epochs=3"]
        yield ["--runs=run", "--preset=digits"]
        yield []
        yield [*begun, "--objective=elbo"]
        yield [*begun, "--seed=1"]
    if name == "evaluate":
        yield [*begun, f"--num_samples={HUGE}"]
        yield [*begun, "--also=x"]
        yield [*begun, "--also=ais,"]
        yield [*begun, "--also=aggregate", "--also_examples=4"]
        yield [*begun, "--ais_chains=4"]
        yield [*begun, "--also=ais", "--ais_chains=1000000000"]
        yield [*begun, "--devices=500"]
    if name == "generate":
        yield from ([*begun, f"--indices={text}"] for text in ("-1", "x", "0,", "360", HUGE, "1.5"))
        yield from ([*begun, f"--morph={text}"] for text in ("1", "1,2,3", "1,360", "x,y"))
    if name == "growth":
        yield ["--workdir=run"]
        yield ["--batch_sizes=100,20000"]
        yield ["--runs=2.5"]
    if name == "benchmark":
        yield ["--works=sweep", "--peers=keras"]
        yield ["--works=tutorial,tutoria"]
        yield ["--peers=torch", "--peers_python=none"]
        yield ["--peers=flax_loop", "--peers_python=python3"]
        yield ["--dataset=./none.npz"]
        yield ["--manual_dir=none"]
        yield ["--workdir=run"]
    if name == "soak":
        yield ["--kinds=train,trian"]
        yield ["--workdir=run"]
    if name == "runs":
        yield from ([f"--folder={path}"] for path in ("none", "file"))
    if name == "gradients":
        yield ["--workdir=none"]
        yield [*begun, "--checkpoint=best"]
        yield [*begun, "--workdir=run", "--latent_dim=3"]
        yield [*begun, "--reference_draws=3"]
        yield [*begun, "--batch_size=100000"]
        yield [*begun, "--channels=3"]
        yield [*begun, "--objectives=elbo", "--num_groups=3"]


def without_effect_with(begun: list[str]) -> Iterator[list[str]]:
    return ([*begun, *given] for given in without_effect())


def commands(name: str) -> list[list[str]]:
    found = [*in_general(name), *of_each_flag(name), *of_script(name)]
    return [list(one) for one in dict.fromkeys(map(tuple, found))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run and with what is no run."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "file").write_text("text")
    (folder / "empty").mkdir()
    with tarfile.open(Path(__file__).parents[1] / "fixtures" / "format_2.tar.gz") as stored:
        stored.extractall(folder, filter="data")
    (folder / "comparisons" / "renyi" / "runs" / "elbo+seed=0").rename(folder / "run")
    for name in ("comparisons", "resumed", "runs", "searches", "sweeps"):
        shutil.rmtree(folder / name)
    for name, file, text in (("damaged", CONFIG, "{"), ("sweep", SWEEP, '{"sweep": []}'), ("plan", PLAN, "{}")):
        (folder / name).mkdir()
        (folder / name / file).write_text(text)
    (folder / "lost" / CHECKPOINTS / "5").mkdir(parents=True)
    return folder


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_wrong_command_is_one_line_and_exit_code_1_and_writes_nothing(folder, name):
    wrong = []
    for command in commands(name):
        try:
            script_calls.refusal(folder, name, *command)
        except AssertionError as error:
            wrong.append(f"{' '.join(command)}: {error}"[-500:])
    assert not wrong, f"{len(wrong)} of {len(commands(name))}:\n" + "\n".join(wrong)
