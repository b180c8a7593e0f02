"""Every PRNG key is spent once, split at the top of its function into keys named by use; nothing is random globally.

A name is a key in a function if it is a parameter `key`, `key_…` or `root`, or is bound to what `split`, `fold_in`,
`stream` or `jax.random.key` gives. `root` is a key that is never spent: streams are folded from it. Not counted as use:
`fold_in` and `stream`, one key for each index; `clone`, which says that noise is repeated on purpose; and `eval_shape`,
which draws nothing.
"""

import ast
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Peers are written as the users of other libraries write.
FILES = sorted(
    path for room in ("vae", "experiments") for path in (ROOT / room).rglob("*.py") if path.parent.name != "peers"
)
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
LOOPS = ast.For | ast.While
COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
KEY = re.compile(r"key|key_\w+|root")
MAKES_KEYS = re.compile(r"jax\.random\.(split|fold_in|key|clone)|stream")
FOLDS = re.compile(r"jax\.random\.fold_in|stream")
REPEATS = re.compile(r"(jax\.)?lax\.\w+|jax\.vmap")
FREE = re.compile(r"jax\.random\.(fold_in|clone)|stream|jax\.eval_shape")
NAMED_BY_USE = re.compile(r"_|key_\w+")
SEEDED = re.compile(r"np\.random\.(default_rng|SeedSequence|Generator|RandomState)|random\.(Random|SystemRandom)")


def name_of(call: ast.AST) -> str:
    return ast.unparse(call.func) if isinstance(call, ast.Call) else ""


def parameters(function) -> list[str]:
    found = function.args
    return [one.arg for one in (*found.posonlyargs, *found.args)]


def body(function) -> list[ast.AST]:
    return function.body if isinstance(function.body, list) else [function.body]


def own(function) -> Iterator[ast.AST]:
    """What is in a function, without the functions inside it."""
    stack = list(body(function))
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, FUNCTIONS):
            stack += ast.iter_child_nodes(node)


def bound(node: ast.AST) -> set[str]:
    """The names that a node binds: the targets of an assignment, a loop or a comprehension, parameters."""
    if isinstance(node, FUNCTIONS):
        names = {*parameters(node), *(one.arg for one in node.args.kwonlyargs)}
        return names.union(*(bound(one) for one in own(node) if not isinstance(one, FUNCTIONS)))
    targets = {
        ast.Assign: lambda: node.targets,
        ast.For: lambda: [node.target],
        ast.comprehension: lambda: [node.target],
    }.get(type(node), list)()
    return {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}


def keys_of(function) -> set[str]:
    """The names of a function's own that are PRNG keys."""
    found = {name for name in parameters(function) if KEY.fullmatch(name)}
    found |= {one.arg for one in function.args.kwonlyargs if KEY.fullmatch(one.arg)}
    for node in own(function):
        if isinstance(node, ast.Assign) and any(MAKES_KEYS.fullmatch(name_of(one)) for one in ast.walk(node.value)):
            found |= {name for name in bound(node) if name.startswith("key")}
    return found


def uses(node: ast.AST, name: str) -> float:
    """How often a node spends the key `name`: of branches the one that spends more, in a loop infinitely often."""
    if isinstance(node, ast.Name):
        return float(node.id == name and isinstance(node.ctx, ast.Load))
    if isinstance(node, FUNCTIONS):
        return 0 if name in bound(node) else within(body(node), name)
    if isinstance(node, ast.If | ast.IfExp):
        listed = [part if isinstance(part, list) else [part] for part in (node.body, node.orelse)]
        return uses(node.test, name) + max(within(part, name) for part in listed)
    if isinstance(node, LOOPS | COMPREHENSIONS):
        return in_loop(node, name)
    if REPEATS.fullmatch(name_of(node)) and any(uses(one, name) for one in node.args if isinstance(one, ast.Lambda)):
        return math.inf
    if FREE.fullmatch(name_of(node)):
        return within([one for one in node.args if not isinstance(one, ast.Name)], name)
    return within(list(ast.iter_child_nodes(node)), name)


def within(nodes: list[ast.AST], name: str) -> float:
    return sum(uses(one, name) for one in nodes)


def in_loop(node, name: str) -> float:
    if isinstance(node, COMPREHENSIONS):
        first = node.generators[0].iter
        if any(name in bound(one) for one in node.generators):
            return uses(first, name)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        parts += [test for one in node.generators for test in one.ifs]
        parts += [one.iter for one in node.generators[1:]]
    else:
        first = node.iter if isinstance(node, ast.For) else node.test
        parts = [*node.body, *node.orelse]
        if any(name in bound(one) for part in parts for one in ast.walk(part)):  # another key each time
            return uses(first, name) + within(parts, name)
    return uses(first, name) + (math.inf if within(parts, name) else 0)


def is_folded(node: ast.AST, name: str) -> bool:
    return any(
        isinstance(one, ast.Name) and one.id == name
        for call in ast.walk(node)
        if FOLDS.fullmatch(name_of(call))
        for one in call.args[:1]
    )


def repeated(function) -> list[ast.AST]:
    """The functions inside of one that a loop of JAX calls by name."""
    calls = [node for node in own(function) if REPEATS.fullmatch(name_of(node))]
    names = {one.id for call in calls for one in call.args if isinstance(one, ast.Name)}
    return [node for node in own(function) if isinstance(node, ast.FunctionDef) and node.name in names]


def faults_of_function(function) -> Iterator[str]:
    positional = [name for name in parameters(function) if name not in ("self", "cls")]
    if any(name in positional[1:] for name in ("key", "root")) and positional[0] not in ("key", "root"):
        yield "a key is the first argument"
    for name in sorted(keys_of(function)):
        spent = within(body(function), name)
        if any(uses(one, name) for one in repeated(function)):
            spent = math.inf
        if name == "root":
            continue
        if spent > 1:
            yield f"{name} is spent {spent:g} times"
        if spent and any(is_folded(one, name) for one in body(function)):
            yield f"{name} is spent, and others are folded from it"
    for node in own(function):
        called = name_of(node)
        if called.startswith("jax.random.") and not FREE.fullmatch(called) and "root" in map(ast.unparse, node.args):
            yield f"root is spent by {called}"
    yield from faults_of_splits(function)


def faults_of_splits(function) -> Iterator[str]:
    keys = keys_of(function)
    for node in own(function):
        if isinstance(node, ast.Assign) and any(name_of(one) == "jax.random.split" for one in values(node.value)):
            target = node.targets[0]
            names = [one.id for one in target.elts] if isinstance(target, ast.Tuple) else []
            if not (all(map(NAMED_BY_USE.fullmatch, names)) if names else target.id.startswith("keys")):
                yield f"{ast.unparse(target)} does not name keys by use"
            if node not in body(function):
                yield f"{ast.unparse(node)} is not at the top of its function"
        spent = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)} if node in body(function) else set()
        if "key" in spent and "key" in keys and any(name_of(one) == "jax.random.split" for one in ast.walk(node)):
            before = body(function)[: body(function).index(node)]
            if any(name_of(one).startswith("jax.random.") for part in before for one in ast.walk(part)):
                yield "key is split after something was drawn"


def values(node: ast.AST) -> list[ast.AST]:
    return [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]


def faults(source: str) -> list[str]:
    tree = ast.parse(source)
    found = [
        f"line {function.lineno}: {fault}"
        for function in ast.walk(tree)
        if isinstance(function, FUNCTIONS)
        for fault in faults_of_function(function)
    ]
    for node in ast.walk(tree):
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if name == "jax.random.PRNGKey":
            found.append(f"line {node.lineno}: a raw key; use jax.random.key")
        if re.fullmatch(r"(np|numpy)\.random\.\w+|random\.\w+", name) and not SEEDED.fullmatch(name):
            found.append(f"line {node.lineno}: {name} is global random state")
        if SEEDED.fullmatch(name_of(node)) and not node.args and name_of(node) != "random.SystemRandom":
            found.append(f"line {node.lineno}: {name_of(node)} without a seed")
        if isinstance(node, ast.ImportFrom) and node.module in ("random", "numpy.random", "jax.random"):
            found.append(f"line {node.lineno}: a random function without its module's name")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_key_is_spent_once_and_named_by_use_and_nothing_is_random_globally(path):
    if path != ROOT / "vae" / "streams.py":  # where streams are folded, index by index
        assert faults(path.read_text()) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def f(x, key):\n return g(key)", "first argument"),
        ("def f(self, x, root):\n return g(root)", "first argument"),
        ("def f(key):\n return g(key) + h(key)", "key is spent 2 times"),
        ("def f(key):\n a, b = jax.random.split(key)\n return g(a) + h(b)", "does not name keys by use"),
        ("def f(key):\n key_a, key_b = jax.random.split(key)\n return g(key_a) + h(key_a)", "key_a is spent 2 times"),
        ("def f(key):\n key, key_b = jax.random.split(key)\n return g(key_b)", "does not name keys by use"),
        ("def f(key):\n for i in x:\n  g(key)", "spent inf times"),
        ("def f(key):\n return [g(key) for i in x]", "spent inf times"),
        ("def f(key):\n return jax.vmap(lambda x: g(key, x))(y)", "spent inf times"),
        ("def f(key):\n def add(i, x):\n  return g(key)\n return lax.fori_loop(0, 3, add, x)", "spent inf times"),
        ("def f(key):\n return g(jax.random.fold_in(key, 1)) + g(key)", "others are folded from it"),
        ("def f(root):\n return jax.random.normal(root)", "root is spent by jax.random.normal"),
        ("def f(key):\n if x:\n  key_a, key_b = jax.random.split(key)", "not at the top"),
        ("def f(key):\n x = jax.random.normal(k)\n key_a, key_b = jax.random.split(key)", "after something was drawn"),
        ("key = jax.random.PRNGKey(0)", "raw key"),
        ("np.random.seed(0)", "global random state"),
        ("x = np.random.normal()", "global random state"),
        ("x = random.random()", "global random state"),
        ("rng = np.random.default_rng()", "without a seed"),
        ("from numpy.random import normal", "without its module's name"),
    ],
)
def test_each_fault_is_found(source, fault):
    assert any(fault in one for one in faults(source)), faults(source)


@pytest.mark.parametrize(
    "source",
    [
        "def f(key):\n key_a, key_b = jax.random.split(key)\n return g(key_a) + h(key_b)",
        "def f(key):\n return [g(jax.random.fold_in(key, i)) for i in x]",
        "def f(key):\n return g(key) if x else h(key)",
        "def f(key):\n return g(key) + g(jax.random.clone(key))",
        "def f(root, x):\n return [g(stream(root, Stream.NOISE, i)) for i in x]",
        "def f(key, x):\n keys = jax.random.split(key, len(x))\n return [g(key, i) for key, i in zip(keys, x)]",
        "rng = np.random.default_rng(0)",
    ],
)
def test_what_is_allowed_is_no_fault(source):
    assert faults(source) == []
