"""What is installed: the core works without extras, a missing extra is named, and archives hold the package alone."""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

from jepa_agent.extras import EXTRAS, MissingExtraError, needs

ROOT = Path(__file__).parent.parent
ROOMS = ("jepa_agent", "envs", "experiments")
CORE = {"gymnasium", "torch", "stable-baselines3", "numpy", "safetensors", "tensorboard"}
HIDE = """
import runpy, sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)
HIDDEN = set(sys.argv.pop(1).split(","))
sys.meta_path[:] = map(Without, sys.meta_path)
"""


def hiding(modules, code, *argv):
    """The output of code in a process where modules cannot be imported."""
    words = [sys.executable, "-c", HIDE + code, ",".join(modules), *argv]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT.anchor, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_the_core_works_alone_and_missing_extras_are_named():
    optional = {"pandas", *(module for modules in EXTRAS.values() for module in modules)}
    code = "sys.argv[0] = path = sys.argv[1]; del sys.argv[1]; runpy.run_path(path, run_name='__main__')"
    told = hiding(optional, code, str(Path(__file__).with_name("core_alone.py")), "40")
    assert "40 steps learned, both modes acted, saved, loaded and resumed" in told
    assert sum("pip install 'jepa_agent[" in line for line in told) == 10


def test_the_command_line_needs_no_other_extra_but_where_it_draws_and_films():
    code = """
from jepa_agent.cli import VERBS, main, module_of
from jepa_agent.cli.flags import parser_of
for verb in VERBS:
    try:
        module_of(verb)
        parser_of(verb)
    except ImportError as error:
        print(verb, error)
sys.stderr = sys.stdout
main(["enjoy", "runs"])
"""
    told = dict(line.split(" this needs ") for line in hiding([m for e in EXTRAS if e != "cli" for m in EXTRAS[e]], code))
    assert told.pop("jepa-agent enjoy: error:") == "moviepy: pip install 'jepa_agent[video]'"
    assert set(told) == {"compare", "plot", "plan-bench", "explain", "audit"}
    assert {line.partition(": ")[2] for line in told.values()} == {"pip install 'jepa_agent[compare]'"}


def test_a_mistake_of_ours_is_not_taken_for_a_missing_package():
    with pytest.raises(ModuleNotFoundError, match=r"jepa_agent\.nothing") as caught, needs("cli"):
        import jepa_agent.nothing  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)


def test_every_module_that_is_imported_is_of_the_core_or_of_an_extra():
    found = set()
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        tree = ast.parse(path.read_text())
        unread = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if node not in unread and isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif node not in unread and isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).partition(".")[0])
    known = {"jepa_agent", "optuna", *(name.replace("-", "_") for name in CORE)}  # rl_zoo3 is there for optuna
    assert found - known - sys.stdlib_module_names <= {module for modules in EXTRAS.values() for module in modules}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Names in sdist and wheel, and the wheel's metadata, of a copy with results, figures and runs beside the code."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ROOMS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("results", "__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, copy)
    for name in (
        "tests/test_it.py",
        "experiments/results/study/summary.yaml",
        "docs/figures/curve.png",
        "runs/a/config.yml",
    ):
        (copy / name).parent.mkdir(parents=True)
        (copy / name).touch()
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist"]
    done = subprocess.run(words, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    [sdist], [wheel] = (copy / "dist").glob("*.tar.gz"), (copy / "dist").glob("*.whl")
    with tarfile.open(sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [metadata] = [archive.read(name).decode() for name in names if name.endswith("dist-info/METADATA")]
    return sources, names, message_from_string(metadata)


def test_archives_hold_the_package_with_its_data_and_nothing_else(built):
    sources, names, _ = built
    kinds = (".py", ".yaml", ".yml", ".j2", ".typed")
    files = [path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in kinds]
    files = [path for path in files if "results" not in path.parts]
    inside = {str(path if path.parts[0] == "jepa_agent" else "jepa_agent" / path) for path in files}
    assert {name for name in names if ".dist-info/" not in name} == inside
    assert {"jepa_agent/py.typed", "jepa_agent/zoo/jepa.yml", "jepa_agent/experiments/templates/report.md.j2"} <= inside
    assert {"README.md", "LICENSE", "CHANGELOG.md", "setup.cfg", "pyproject.toml", *map(str, files)} <= sources
    assert not [name for name in sources | names if re.search(r"(^|/)(tests|results|figures|runs|docs)(/|$)", name)]


def plain(name):
    """A distribution's name as PyPI compares it, of a line that may go on with extras and versions."""
    return re.sub("[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()


def test_the_core_requires_six_packages_and_each_extra_those_of_its_modules(built):
    required, extras = (built[2].get_all(field) for field in ("Requires-Dist", "Provides-Extra"))
    assert {plain(line) for line in required if "extra ==" not in line} == CORE
    assert set(extras) == {*EXTRAS, "all", "docs", "dev"}
    providers = importlib.metadata.packages_distributions()
    for extra in ("cli", "compare", "baselines"):
        own = {plain(line) for line in required if f'extra == "{extra}"' in line}
        assert {plain(providers[module][0]) for module in EXTRAS[extra]} == own - {"jepa-agent"}
