"""Claims of the package as a house: who imports whom, and that importing does nothing.

Read from the source with `ast`, so that a module need not be importable to be judged.
"""

import ast
import functools
import os
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "btsrn_jax"

# A module imports only from modules above its own line.
ORDER = [
    "errors",
    "storage",
    "progress",
    "network.ops",
    "resize",
    "network.vdsr",
    "network.btsrn",
    "images.exif",
    "images.decode",
    "images.encode",
    "images.files",
    "images.crops",
    "metrics",
    "config",
    "mesh",
    "training.preemption",
    "data.div2k",
    "data.folders",
    "data.datasets",
    "data.sampler",
    "data.host_store",
    "inference.tiling",
    "checkpoint",
    "inference.weights",
    "training.metrics_log",
    "evaluation.evaluate",
    "training.step",
    "training.loop",
    "network.onnx_graph",
    "export.formats",
    "export.provenance",
    "export.model_card",
    "export.write",
    "inference.models",
    "inference.upscale",
    "report.plots",
    "report.html_page",
    "report.tables",
    "report.results",
    "report.experiments",
    "report.write",
    "benchmark.bench",
    "benchmark.worker",
    "benchmark.fit",
    "main",
    "cli",
]
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
)

FLAX = {"network.btsrn", "network.vdsr"}  # everything else sees variables and apply
NOWHERE = {"tensorflow", "torch", "clu"}  # clu's writers import TensorFlow

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


def siblings(nodes):
    """Modules of this package that the nodes import."""
    names = {name.removeprefix("btsrn_jax.") for _, name in imported(nodes)}
    names |= {name.rpartition(".")[0] for name in names}
    return names & set(MODULES)


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


def test_every_module_has_its_place_in_the_order():
    assert len(set(ORDER)) == len(ORDER)
    missing = [module for module in MODULES if module not in ORDER]
    assert not missing, (
        f"{', '.join(missing)}: not in ORDER of tests/test_imports.py. Give each new"
        " module its place there, and in the README's account of the code."
    )


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_above_itself(module):
    if module not in ORDER:
        pytest.fail(f"{module} has no place in ORDER of tests/test_imports.py")
    above = set(ORDER[: ORDER.index(module)])
    below = siblings(ast.walk(tree(module))) - above
    assert not below, f"{module} imports {', '.join(sorted(below))} from below itself"


def test_the_package_itself_imports_its_modules_only_when_asked():
    body = at_import(tree("__init__"))
    assert siblings(body) <= {"errors"}


def test_only_the_networks_import_flax():
    assert {module for module in MODULES if "flax" in packages(module)} <= FLAX


@pytest.mark.parametrize(
    "module", [*MODULES, "__init__", *(f"{room}.__init__" for room in ROOMS)]
)
def test_no_module_imports_tensorflow_or_torch(module):
    assert not packages(module) & NOWHERE


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
for module in {MODULES}:
    importlib.import_module("btsrn_jax." + module)
print([name for name in {sorted(NOWHERE)} if name in sys.modules])
"""
    assert run_python(code, JAX_PLATFORMS="nonesuch").strip() == "[]"
