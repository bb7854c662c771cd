"""Which module may import which, checked on the code itself; and limits for files, functions and folders."""

import ast
import subprocess
import sys
from collections import Counter
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the lowest layer to the highest. A module may import only modules of the rows above its own in this list, or of
# its own folder. Each folder of `retrieval` is one part, and so is each file outside a folder. Add new parts here.
LAYERS = [
    ["errors", "arrays", "forking", "words"],
    ["installed"],
    ["console"],
    ["files"],
    ["untrusted"],
    ["hub_errors", "stores", "encoders"],
    ["images"],
    ["sources"],
    ["artifact"],
    ["evaluation"],
    ["build"],
    ["hub", "bench"],
    ["query"],
    ["search"],
    ["ui"],
    ["commands"],
    ["__main__"],
]
# The same for the folders of `training`.
TRAINING_LAYERS = [
    ["recipe"],
    ["data"],
    ["model"],
    ["loop"],
    ["results"],
    ["run"],
    ["starter"],
    ["bench"],
    ["commands"],
    ["__main__"],
]
# Serving imports none of them where an artifact has the exported network.
TORCH = ["retrieval/encoders/network/", "retrieval/encoders/engines/torch.py", "retrieval/encoders/text/network/"]
# A package -> the files and folders that may import it.
OWNERS = {
    "gradio": ["retrieval/ui/"],
    "playwright": ["retrieval/bench/page.py"],
    "fastapi": ["retrieval/ui/server/"],
    "prometheus_client": ["retrieval/ui/server/"],
    "uvicorn": ["retrieval/ui/server/"],
    "gradio_client": ["retrieval/ui/", "retrieval/bench/artifact.py"],
    "typer": ["retrieval/commands/", "training/commands.py"],
    "torch": [*TORCH, "training/"],
    "torchvision": ["training/"],
    "timm": ["retrieval/encoders/network/", "training/"],
    "onnxruntime": ["retrieval/encoders/engines/onnx.py"],
    "openvino": ["retrieval/encoders/engines/openvino.py"],
    "nncf": ["retrieval/encoders/network/quantize.py"],
    "onnx": [
        *("retrieval/encoders/network/quantize.py", "retrieval/encoders/engines/trusted.py"),
        "retrieval/encoders/engines/checks/",
    ],
    "transformers": ["retrieval/encoders/text/network/", "training/"],
    "accelerate": ["training/"],
    "pytorch_metric_learning": ["training/"],
    "yaml": ["training/recipe.py"],
    "pydantic": ["retrieval/artifact/metrics.py", "retrieval/artifact/sections.py", "training/recipe.py"],
    "safetensors": ["retrieval/encoders/", "training/"],
    "faiss": ["retrieval/stores/", "retrieval/bench/"],
    "matplotlib": ["retrieval/evaluation/plots/"],
    **{name: [] for name in ("scipy", "sklearn", "pandas")},  # large, for a few lines of statistics
    "qdrant_client": ["retrieval/stores/servers/qdrant.py"],
    **{
        name: ["retrieval/stores/servers/pgvector.py", "retrieval/stores/servers/connections.py"]
        for name in ("psycopg", "psycopg_pool")
    },
    "pymilvus": ["retrieval/stores/servers/milvus.py"],
    "watchfiles": ["retrieval/build/watch.py"],
    "openTSNE": ["retrieval/artifact/parts/map.py"],
    "umap": ["retrieval/artifact/parts/map.py"],
    "datasets": ["retrieval/sources/", "training/data/dataset.py"],
    "huggingface_hub": [
        *("retrieval/hub/", "retrieval/build/card.py", "retrieval/encoders/"),
        "retrieval/sources/datasets.py",  # reads the card of a dataset
    ],
    "httpcore": ["retrieval/sources/lists/"],
    "httpx2": ["retrieval/hub/client.py"],
    "jinja2": ["retrieval/ui/"],
    **{name: [] for name in ("pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")},
}
# Entry points, and the modules of the project that they may import.
ENTRY_POINTS = {
    "app": {"retrieval.__main__"},
    "lookalike": {"retrieval.__main__", "retrieval.commands.run", "training.commands"},
}
PICKLING = {"torch.load", "torch.save", "pandas.read_pickle"}

LONGEST_FILE, LONGEST_FUNCTION = 250, 40
MOST_MODULES = 10  # in a folder
LONGER_FILES = {
    "training/starter/shapes.py": "outlines of twelve articles: data, not logic",
    "training/starter/catalogue.py": "one drawing program, read from top to bottom",
    "retrieval/search.py": "the public search API, in one class",
    "training/recipe.py": "sixty settings with one to three lines each: a table, not logic",
}
LONGER_FUNCTIONS = {
    **{
        f"retrieval/commands/{name}": "one line for each of its options"
        for name in ("change.py:build", "search.py:search", "serve.py:serve")
    },
    "retrieval/sources/folder.py:image_folder": "the row reader needs what the folder was found to hold",
}

FILES = sorted(
    [ROOT / "app.py", ROOT / "lookalike.py", *(ROOT / "retrieval").rglob("*.py"), *(ROOT / "training").rglob("*.py")]
)
PATHS = {path.relative_to(ROOT).as_posix(): path for path in FILES}
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), name) for name, path in PATHS.items()}


def module_of(name):
    """`retrieval/ui/page.py` -> `retrieval.ui.page`; a package is named like its folder."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(name): name for name in PATHS}


def imports_of(name, tree):
    """(line, full name) of every import anywhere in a file; `from x import y` counts as x.y if that is a module."""
    package = module_of(name).split(".") if name.endswith("__init__.py") else module_of(name).split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield node.lineno, full if full in MODULES else base


IMPORTS = {name: sorted(set(imports_of(name, tree))) for name, tree in TREES.items()}


def part_of(module):
    """The part of its package that a module belongs to: `retrieval.ui.page` -> `ui`."""
    return module.split(".")[1]


def height(part, layers):
    return next((number for number, row in enumerate(layers) if part in row), None)


def wrong_arrow(importer, imported):
    """Why one module of the project may not import another; None if it may."""
    if importer in ENTRY_POINTS:
        return None if imported in ENTRY_POINTS[importer] else "an entry point imports only the commands"
    if imported.startswith("training") and importer.startswith("training"):
        return climbs(importer, imported, TRAINING_LAYERS) if "." in imported and "." in importer else None
    if not imported.startswith("retrieval"):
        return "nothing imports an entry point, and only training imports training"
    if importer == "retrieval":
        return None  # the package itself, which lists its public names and imports them lazily
    if imported == "retrieval":
        return None if importer.startswith("training") else "modules of retrieval import each other by name"
    if importer.startswith("training"):
        return "training does not serve" if part_of(imported) in {"ui", "__main__"} else None
    return climbs(importer, imported, LAYERS)


def climbs(importer, imported, layers):
    ours, theirs = (height(part_of(module), layers) for module in (importer, imported))
    if ours is None or theirs is None:
        return f"{part_of(importer if ours is None else imported)} has no place in the layers yet"
    if part_of(importer) == part_of(imported) or theirs < ours:
        return None
    return f"{part_of(imported)} does not lie below {part_of(importer)}"


def is_owner(name, owners):
    return any(name == owner or (owner.endswith("/") and name.startswith(owner)) for owner in owners)


@pytest.mark.parametrize("name", PATHS)
def test_imports_follow_the_layers(name):
    importer = module_of(name)
    wrong = []
    for line, imported in IMPORTS[name]:
        package = imported.split(".")[0]
        if package in {"retrieval", "training", *ENTRY_POINTS}:
            reason = wrong_arrow(importer, imported)
        else:
            owners = OWNERS.get(package)
            reason = None if owners is None or is_owner(name, owners) else f"only {owners or 'nobody'} may"
        if reason:
            wrong.append(f"{name}:{line} imports {imported}: {reason}")
    assert not wrong, "\n".join(wrong)


# What is slow to import or large, and not needed where these modules are: by no module that they import at their start.
LATE = {
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "datasets",
    "fsspec",
    "scipy",
    "sklearn",
    "matplotlib",
    "watchfiles",
    "playwright",
    "yaml",
    "pandas",
}
SPARED = {
    "retrieval.artifact.load": LATE | {"gradio", "fastapi", "httpx", "typer"},
    "retrieval.search": LATE | {"gradio", "fastapi", "httpx", "typer"},
    "retrieval.ui.following": LATE | {"typer"},
    "retrieval.ui.server.launch": LATE | {"typer"},
    "retrieval.images.door.workers.program": LATE | {"torch", "pyarrow", "faiss", "gradio", "huggingface_hub"},
    "retrieval.ui.server.several.supervise": LATE | {"torch", "pyarrow", "faiss", "gradio", "huggingface_hub"},
}


def at_import(tree):
    """The imports of a file that run when it is imported: none inside functions, and none for types only."""
    todo = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            todo += node.orelse
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            todo += [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt | ast.ExceptHandler)]


def reached(start):
    """Every module or package that is imported with a module of ours -> the one that imports it first."""
    importers, todo = {start: None}, [start]
    for module in todo:
        above = [module.rsplit(".", up)[0] for up in range(module.count("."))]
        for name in (MODULES[each] for each in above if each in MODULES):
            for _, imported in sorted(imports_of(name, ast.Module(list(at_import(TREES[name])), []))):
                if imported not in importers:
                    importers[imported] = module
                    todo.append(imported)
    return importers


@pytest.mark.parametrize("module", SPARED)
def test_what_a_module_does_not_need_is_imported_late(module):
    importers = reached(module)
    for heavy in (each for each in importers if each.split(".")[0] in SPARED[module]):
        chain = [heavy]
        while importers[chain[-1]]:
            chain.append(importers[chain[-1]])
        pytest.fail(f"{' <- '.join(chain)}: import it in the function that needs it")


@pytest.mark.parametrize(("package", "layers"), [("retrieval", LAYERS), ("training", TRAINING_LAYERS)])
def test_every_part_is_listed_in_the_layers(package, layers):
    parts = {part_of(module) for module in MODULES if module.startswith(f"{package}.")}
    listed = [part for row in layers for part in row]
    assert len(listed) == len(set(listed))
    assert parts == set(listed)


def test_folders_have_few_modules():
    folders = Counter(Path(name).parent.as_posix() for name in PATHS if not name.endswith("__init__.py"))
    assert not (full := {folder: count for folder, count in folders.items() if count > MOST_MODULES}), full


def test_imports_have_no_cycle():
    graph = {
        module: {imported for _, imported in IMPORTS[name] if imported in MODULES}
        for module, name in MODULES.items()
        if module != "retrieval"  # it imports lazily
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("retrieval.errors", "retrieval.images.open"),
        ("retrieval.encoders.image", "retrieval.images.gallery"),
        ("retrieval.stores.faiss", "retrieval.encoders.image"),
        ("retrieval.images.gallery", "retrieval.artifact.load"),
        ("retrieval.artifact.load", "retrieval.search"),
        ("retrieval.search", "retrieval.ui.page"),
        ("retrieval.hub.push", "retrieval.search"),
        ("retrieval.hub.client", "retrieval.bench.page"),
        ("retrieval.images.open", "retrieval"),
        ("retrieval.build.build", "training.starter.catalogue"),
        ("retrieval.search", "app"),
        ("training.starter.__main__", "retrieval.ui"),
        ("training.data.dataset", "training.loop.guards"),
        ("app", "retrieval.artifact.load"),
        ("lookalike", "retrieval.search"),
        ("training.run", "lookalike"),
        ("retrieval.new", "retrieval.errors"),
    ],
)
def test_forbidden_import_is_detected(importer, imported):
    assert wrong_arrow(importer, imported)


def test_every_form_of_import_is_detected():
    source = (
        "import a.b\nfrom .console import c\ndef f():\n from retrieval import search, Encoder\nfrom . import errors"
    )
    found = set(imports_of("retrieval/search.py", ast.parse(source)))
    ours = {(2, "retrieval.console"), (4, "retrieval.search"), (4, "retrieval"), (5, "retrieval.errors")}
    assert found == {(1, "a.b"), *ours}
    assert ("retrieval.errors" in MODULES) and len(IMPORTS["retrieval/search.py"]) > 5


def pickling(tree):
    """Lines that could run code from a file: torch's own format, or numpy object arrays."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in PICKLING:
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f) for a in node.names if (f := f"{node.module}.{a.name}") in PICKLING)
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            yield node.value.lineno, "allow_pickle"


def test_code_uses_no_pickle():
    found = [f"{name}:{line} has {what}" for name, tree in TREES.items() for line, what in pickling(tree)]
    assert not found, "\n".join(found)
    bad = "from torch import load\ntorch.load(p)\nnp.load(p, allow_pickle=True)\nnp.load(p, allow_pickle=False)"
    assert sorted(line for line, _ in pickling(ast.parse(bad))) == [1, 2, 3]


def test_no_name_of_a_module_is_given_two_values():
    """The second one would silently win, as for a sentence in `strings` that two people add."""
    for name, tree in TREES.items():
        assigned = [node.targets[0].id for node in tree.body if isinstance(node, ast.Assign) and is_name(node)]
        twice = {each for each in assigned if assigned.count(each) > 1}
        assert not twice, f"{name}: {twice}"


def is_name(node):
    return len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)


def test_files_are_short():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in PATHS.items()}
    long = [f"{name} has {count} lines" for name, count in lines.items() if count > LONGEST_FILE]
    over = [line for line in long if line.split()[0] not in LONGER_FILES]
    assert not over, f"more than {LONGEST_FILE}: {over}; split it, or say in LONGER_FILES why not"
    assert LONGER_FILES.keys() <= lines.keys()


def test_functions_are_short():
    over, names = [], set()
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(key := f"{name}:{node.name}")
                count = node.end_lineno - node.lineno + 1
                if count > LONGEST_FUNCTION and key not in LONGER_FUNCTIONS:
                    over.append(f"{key} has {count} lines")
    assert not over, f"more than {LONGEST_FUNCTION}: {over}; split it, or say in LONGER_FUNCTIONS why not"
    assert LONGER_FUNCTIONS.keys() <= names


HEAVY = set(OWNERS) - {"marshal", "pickle", "_pickle"} | {"numpy", "pyarrow", "PIL"}


@pytest.mark.parametrize(
    ("modules", "needed"),
    [
        ("retrieval, lookalike", {"typer", "yaml"}),
        ("retrieval.__main__, retrieval.hub.deploy", {"huggingface_hub", "httpx2", "typer", "yaml"}),
    ],
)
def test_import_loads_no_heavy_packages(modules, needed):
    """Checks the package, and the deploy module, which the workflow runs with only the Hub's client installed."""
    code = f"import sys, {modules}; print([m for m in {sorted(HEAVY - needed)} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_pytest_collects_every_test_file(request):
    """Folders that are never searched go by their name alone, and `build` is one of pytest's own list."""
    skipped = request.config.getini("norecursedirs")
    files = [path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")]
    assert files
    assert [file for file in files if any(fnmatch(part, each) for part in file.parts for each in skipped)] == []
