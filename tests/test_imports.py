"""Claims of the package as a house: who imports whom, and that importing does nothing.

Read from the source with `ast`, so that a module need not be importable to be judged.
"""

import ast
import functools
import graphlib
import importlib
import importlib.metadata
import inspect
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "btsrn_jax"

# The house (docs/architecture.md). A line imports only from lines above it.
ORDER = [
    "errors",
    "storage",
    "progress",
    "owner",
    "lock",
    "streams",
    "resize",
    "metrics",
    "machine",
    "mesh",
    "program_cache",
    "trees",
    "network",
    "field",
    "fields",
    "schedules",
    "rules",
    "config",
    "checkpoint",
    "images",
    "data",
    "inference",
    "evaluation",
    "training",
    "export",
    "report",
    "benchmark",
    "arguments",
    "options",
    "main",
    "cli",
]
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
)

# Modules and identifiers of version 0.1.0 that have other names now.
GONE = {
    "Enlarger", "Journal", "Subject", "Watch", "agreed", "artifacts", "asked",
    "bicubic_subject", "card", "claim", "compiled_once", "enlarge_for",
    "enlarge_picture", "enlarge_tiles", "evaluation_rows", "facts", "facts_of_run",
    "hoststore", "is_vdsr", "journal", "lost", "made_true", "make_bicubic",
    "network_subject", "onnx_hint", "pictures", "preempt", "results", "serve",
    "studies", "workload",
}  # fmt: skip

FLAX = {"network.btsrn", "network.vdsr"}  # everything else sees variables and apply
NOWHERE = {"tensorflow", "torch", "clu"}  # clu's writers import TensorFlow
# Run by PyTorch, in programs of their own; the first one in other people's.
RUN_BY_TORCH = {"export.btsrn_torch", "benchmark.torch_peer"}

# Calls into JAX that only describe something: no array is made, no device asked.
HARMLESS = {
    "jax.jit",
    "jax.custom_jvp",
    "jax.custom_vjp",
    "jax.sharding.PartitionSpec",
    "jax.tree_util.register_dataclass",
    "jax.tree_util.register_pytree_node",
}


@functools.cache
def tree(module):
    path = PACKAGE / f"{module.replace('.', '/')}.py"
    return ast.parse(path.read_text(), filename=module)


def imported(nodes):
    """(local name, full dotted name) of everything that the nodes import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name.split(".")[0]
                yield local, alias.name if alias.asname else local
                if not alias.asname and "." in alias.name:
                    yield local, alias.name  # `import a.b` binds a, and loads a.b
        elif isinstance(node, ast.ImportFrom):
            origin = "btsrn_jax" if node.level else ""
            prefix = ".".join(filter(None, [origin, node.module or ""]))
            for alias in node.names:
                yield alias.asname or alias.name, f"{prefix}.{alias.name}"


def packages(module):
    """Top-level names of all packages imported anywhere in a module."""
    return {name.split(".")[0] for _, name in imported(ast.walk(tree(module)))}


def own(nodes):
    """(first part, rest) of every name of this package that the nodes import, such as
    ("network", "build"), ("network", "") and ("images", "decode.Picture")."""
    for _, name in imported(nodes):
        package, _, path = name.partition(".")
        if package == "btsrn_jax" and path:
            yield path.partition(".")[::2]


@functools.cache
def public(room):
    """What `__all__` of a room says, read from its source."""
    for node in tree(f"{room}.__init__").body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{room}/__init__.py has no __all__")


def beneath(room):
    """Each module of a room, with those modules of the room that it imports."""
    modules = [name for name in MODULES if name.startswith(f"{room}.")]
    return {
        module: {
            found
            for part, rest in own(ast.walk(tree(module)))
            for found in [f"{part}.{rest.partition('.')[0]}"]
            if part == room and found in modules
        }
        for module in modules
    }


def at_import(node):
    """The nodes that run when a module is imported: bodies of functions are left out,
    their decorators and defaults are not."""
    yield node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        defaults = [d for d in node.args.kw_defaults if d is not None]
        children = node.decorator_list + node.args.defaults + defaults
    elif isinstance(node, ast.Lambda):
        children = node.args.defaults
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from at_import(child)


def dotted(node, names):
    """`jnp.zeros` -> "jax.numpy.zeros"; "" for what is no dotted name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Attribute):
        value = dotted(node.value, names)
        return f"{value}.{node.attr}" if value else ""
    return ""


def run_python(code, **environment):
    """The standard output of a fresh interpreter; its errors fail the test."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        env=os.environ | environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_room_and_ground_module_has_its_place_in_the_house():
    there = {module.partition(".")[0] for module in MODULES}
    assert sorted(ORDER) == sorted(there), (
        "Give each new room or ground module its place in ORDER of"
        " tests/test_imports.py, and in the README's tree."
    )


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_rooms_above_its_own(module):
    room = module.partition(".")[0]
    above = ORDER[: ORDER.index(room)]
    names = {part for part, _ in own(ast.walk(tree(module)))} - {room, "__version__"}
    below = names - set(above)
    assert not below, f"{module} imports {', '.join(sorted(below))} from below its room"


@pytest.mark.parametrize("module", MODULES)
def test_another_room_is_entered_through_what_it_names_in_all(module):
    nodes = list(ast.walk(tree(module)))
    rooms = {room: room for room in ROOMS if room != module.partition(".")[0]}
    asked = [(part, rest) for part, rest in own(nodes) if part in rooms and rest]
    # `from btsrn_jax import network` and then `network.build`.
    local = {
        alias: name.removeprefix("btsrn_jax.")
        for alias, name in imported(nodes)
        if name.startswith("btsrn_jax.")
    }
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            room = local.get(node.value.id, "")
            if room in rooms:
                asked.append((room, node.attr))
    hidden = [f"{room}.{name}" for room, name in asked if name not in public(room)]
    assert not hidden, f"{module} uses {', '.join(hidden)}, which no __all__ names"


@pytest.mark.parametrize("room", ROOMS)
def test_inside_a_room_imports_run_one_way(room):
    graphlib.TopologicalSorter(beneath(room)).prepare()  # raises CycleError


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_all_names_exactly_what_loads_and_what_type_checkers_see(room):
    name = f"btsrn_jax.{room}" if room else "btsrn_jax"
    module = importlib.import_module(name)
    source = tree(f"{room}.__init__" if room else "__init__")
    (block,) = (node for node in source.body if isinstance(node, ast.If))
    seen = [alias for alias, _ in imported(block.body)]
    assert sorted(module.__all__) == sorted(seen)
    assert set(module.__all__) <= set(module.__dir__())
    for public_name in module.__all__:
        assert getattr(module, public_name) is not None


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_is_named_as_its_room_or_as_a_public_function_of_it(room):
    names = {module.partition(".")[2] for module in MODULES if module.startswith(room)}
    functions = {
        name
        for name in public(room)
        if not inspect.ismodule(
            getattr(importlib.import_module(f"btsrn_jax.{room}"), name)
        )
    }
    assert not names & (functions | {room})


def test_no_module_or_identifier_keeps_a_name_from_before_the_rooms():
    """Names of modules, classes, functions and attributes that were changed."""
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.parent.glob("tests/**/*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {part for _, name in imported(nodes) for part in name.split(".")}
        names |= {alias for alias, _ in imported(nodes)}
        kinds = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
        names |= {node.name for node in nodes if isinstance(node, kinds)}
        names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert not names & GONE, f"{path.name} still says {', '.join(names & GONE)}"


def normal(name):
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_package_that_is_imported_is_declared():
    """As a dependency or in an extra; what some dependency brings along may vanish."""
    with PACKAGE.parent.joinpath("pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {normal(re.match(r"[\w.-]+", line)[0]) for g in groups for line in g}
    found = importlib.metadata.packages_distributions()
    modules = {*MODULES, "__init__", *(f"{room}.__init__" for room in ROOMS)}
    modules.remove("export.btsrn_torch")  # spandrel, where it is registered there
    third_party = set().union(*map(packages, modules)) - sys.stdlib_module_names
    undeclared = {
        name
        for name in third_party - {"btsrn_jax"}
        if not declared & set(map(normal, found.get(name, [name])))
    }
    assert not undeclared


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_what_all_names_is_annotated_as_a_whole(room):
    """Arguments and results of functions, of constructors and of public methods."""
    package = importlib.import_module(f"btsrn_jax.{room}" if room else "btsrn_jax")
    found = [getattr(package, name) for name in package.__all__]
    functions = [x for x in found if inspect.isfunction(x)]
    for kind in filter(inspect.isclass, found):
        own = vars(kind).items()
        functions += [
            value
            for name, value in own
            if inspect.isfunction(value)
            and value.__module__.startswith("btsrn_jax")
            and value.__qualname__.startswith(kind.__name__)
            and (name in ("__init__", "__call__") or not name.startswith("_"))
        ]
    bare = {}
    for function in functions:
        signature = inspect.signature(function)
        names = [
            name
            for name, argument in signature.parameters.items()
            if argument.annotation is argument.empty and name not in ("self", "cls")
        ]
        if signature.return_annotation is signature.empty:
            names += ["return"] * (function.__name__ != "__init__")
        if names:
            bare[function.__qualname__] = names
    assert bare == {}


def test_only_the_networks_import_flax():
    assert {module for module in MODULES if "flax" in packages(module)} <= FLAX


@pytest.mark.parametrize(
    "module", [*MODULES, "__init__", *(f"{room}.__init__" for room in ROOMS)]
)
def test_no_module_imports_tensorflow_or_torch(module):
    allowed = {"torch"} if module in RUN_BY_TORCH else set()
    assert not packages(module) & NOWHERE - allowed
    reached = {f"{room}.{rest}" for room, rest in own(ast.walk(tree(module)))}
    assert not {path for path in reached if path.startswith(tuple(RUN_BY_TORCH))}


def test_the_network_in_pytorch_needs_nothing_of_this_package():
    assert not list(own(ast.walk(tree("export.btsrn_torch"))))
    beside = packages("export.btsrn_torch") - sys.stdlib_module_names
    assert beside == {"torch", "safetensors", "spandrel"}  # the last in register()


@pytest.mark.parametrize(
    "module", [*MODULES, "__init__", *(f"{room}.__init__" for room in ROOMS)]
)
def test_a_module_calls_nothing_of_jax_while_imported(module):
    nodes = list(at_import(tree(module)))
    names = dict(imported(nodes))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    called = {dotted(call.func, names): call.lineno for call in calls}
    wrong = {
        name: line
        for name, line in called.items()
        if name.split(".")[0] in ("jax", "flax", "optax") and name not in HARMLESS
    }
    assert not wrong, f"{module}.py calls while imported (name: line): {wrong}"
    assigned = [
        dotted(target, names)
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
    ]
    assert not [name for name in assigned if name.split(".")[0] == "jax"]


def test_the_call_check_sees_through_aliases_decorators_and_defaults():
    source = """
import functools, jax
import jax.numpy as jnp
from jax import lax as l
@functools.partial(jax.jit, static_argnums=0)
def f(n, x=jnp.ones(2)):
    return jax.devices()
class C:
    y = l.iota("int32", 3)
g = lambda: jax.devices()
"""
    nodes = list(at_import(ast.parse(source)))
    names = dict(imported(nodes))
    calls = [dotted(n.func, names) for n in nodes if isinstance(n, ast.Call)]
    assert sorted(calls) == ["functools.partial", "jax.lax.iota", "jax.numpy.ones"]


def test_importing_the_package_pulls_in_no_jax():
    heavy = "'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'numpy', 'tensorflow_datasets'"
    code = f"import sys, btsrn_jax; print([m for m in [{heavy}] if m in sys.modules])"
    assert run_python(code).strip() == "[]"


def test_importing_every_module_touches_no_device_and_no_tensorflow():
    # A platform that does not exist: asking for any device would raise.
    code = f"""
import importlib, sys
for module in {sorted(set(MODULES) - RUN_BY_TORCH)}:
    importlib.import_module("btsrn_jax." + module)
print([name for name in {sorted(NOWHERE)} if name in sys.modules])
"""
    assert run_python(code, JAX_PLATFORMS="nonesuch").strip() == "[]"
