"""What the documentation says runs, and the reference leaves no public name out."""

import importlib
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

import jepa_agent
from jepa_agent import planning
from jepa_agent.acting import mode_switch
from jepa_agent.acting.exploration import EXPLORATIONS
from jepa_agent.cli import VERBS, UsageError
from jepa_agent.cli.flags import parser_of
from jepa_agent.experiments.study import read_study
from jepa_agent.model.encoders import ENCODERS
from jepa_agent.model.memory import MEMORIES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {page.relative_to(DOCS).as_posix(): page.read_text() for page in sorted(DOCS.rglob("*.md"))}
LANGUAGES = {"python", "bash", "yaml", "math"}
COLUMN = 85  # characters of code beside both navigations on a screen of 1280 pixels
STEPS, RANDOM, BATCH = 60, 10, 32


def fences(page):
    """Language, content, and what ``<!-- not run: ... -->`` above it says, of every block of a page."""
    text = PAGES.get(page) or (ROOT / page).read_text()
    found = re.findall(r"(?:^<!-- not run: (.+) -->\n+)?^```(\S*)[^\n]*\n(.*?)^```$", text, re.S | re.M)
    return [(language, content, why) for why, language, content in found]


def blocks(page, language):
    return [content for found, content, why in fences(page) if found == language and not why]


def commands(page):
    """Lines of a page's bash blocks that are run."""
    return "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()


def mentions(page):
    """Commands within a page's sentences, which may be without their values."""
    return re.findall(r"`(jepa-agent [a-z][^`<>]*)`", PAGES.get(page) or (ROOT / page).read_text())


@pytest.fixture
def short_runs(monkeypatch):
    """Learning takes few steps and small batches, whatever the page says."""
    learn = OffPolicyAlgorithm.learn

    def learn_a_little(self, total_timesteps, *args, **kwargs):
        self.learning_starts, self.batch_size = min(self.learning_starts, RANDOM), min(self.batch_size, BATCH)
        return learn(self, min(total_timesteps, STEPS), *args, **kwargs)

    learn_offline = jepa_agent.JEPA.learn_offline
    monkeypatch.setattr(OffPolicyAlgorithm, "learn", learn_a_little)
    monkeypatch.setattr(jepa_agent.JEPA, "learn_offline", lambda self, n, **how: learn_offline(self, min(n, BATCH), **how))


@pytest.fixture
def own_registries():
    """What a page registers is forgotten after it."""
    registries = [planning.FOR_BOX, planning.FOR_CHOICES, mode_switch.PLAIN, mode_switch.BUDGETED, EXPLORATIONS]
    registries += [ENCODERS, MEMORIES, gymnasium.registry]
    before = [dict(registry) for registry in registries]
    yield
    for registry, known in zip(registries, before, strict=True):
        registry.clear()
        registry.update(known)


@pytest.mark.slow
@pytest.mark.usefixtures("short_runs", "own_registries")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_python_of_a_page_runs_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "docs"}
    for number, block in enumerate(blocks(page, "python"), start=1):
        exec(compile(block, f"{page}, block {number}", "exec", dont_inherit=True), namespace)


@pytest.mark.parametrize("page", [*PAGES, "README.md"])
def test_every_block_is_of_a_kind_that_is_checked(page):
    assert {language for language, _, why in fences(page) if not why} <= LANGUAGES
    wide = [line for language, code, _ in fences(page) if language != "math" for line in code.splitlines()]
    assert page == "README.md" or [line for line in wide if len(line) > COLUMN] == []


def test_the_commands_are_understood():
    seen = set()
    for page in [*PAGES, "README.md"]:
        for line in commands(page):
            program, verb, *words = shlex.split(line, comments=True)
            if (program, verb) == ("python", "-m"):
                assert importlib.util.find_spec(words[0]), f"{page}: {line}"
                continue
            assert (program, verb in VERBS) == ("jepa-agent", True), f"{page}: {line}"
            if {"--resume", "--from"} & set(words):  # the settings of the run name its environment
                words += ["--env", "CartPole-v1"]
            try:
                parser_of(verb).parse_plain(words)
            except UsageError as error:
                pytest.fail(f"{page}: {line}: {error}")
            seen.add(verb)
    assert seen >= {"train", "evaluate", "enjoy", "compare", "plan-bench", "speed"}


@pytest.mark.parametrize("page", [page for page in [*PAGES, "README.md"] if mentions(page)])
def test_the_commands_in_sentences_have_their_flags(page):
    for line in mentions(page):
        verb, *words = shlex.split(line)[1:]
        known = parser_of(verb)._option_string_actions
        assert [word for word in words if word.startswith("-") and word not in known] == [], line


def test_the_studies_are_understood(tmp_path):
    studies = [study for page in PAGES for study in blocks(page, "yaml")]
    for study in studies:
        (tmp_path / "study.yaml").write_text(study)
        assert read_study(tmp_path / "study.yaml").tasks
    assert studies


def documented():
    reference = "".join(text for page, text in PAGES.items() if page.startswith("api/"))
    return set(re.findall(r"^::: (\S+)", reference, re.M))


def public_modules():
    table = PAGES["architecture.md"].partition("\n## What is public\n")[2].partition("\n## ")[0]
    return [name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`([\w.]+)`", row)]


def public_names(module):
    """Full names of what a module exports or defines; tables of registered parts are reached by functions."""
    home = importlib.import_module(module)
    own = [name for name, what in vars(home).items() if getattr(what, "__module__", "") == module and name[0] != "_"]
    return {name for name in getattr(home, "__all__", own) if not isinstance(getattr(home, name), dict)}


def test_every_public_name_is_in_the_reference():
    assert {name for name in jepa_agent.__all__ if f"jepa_agent.{name}" not in documented()} == {"__version__"}
    assert "jepa_agent.__version__" in PAGES["api/agent.md"]
    known = {id(resolved(name)) for name in documented()}
    modules = public_modules()
    assert len(modules) >= 15
    missing = [
        f"{module}.{name}"
        for module in modules
        for name in sorted(public_names(module))
        if id(getattr(importlib.import_module(module), name)) not in known
    ]
    assert missing == []


def test_every_public_name_says_what_it_is_unless_what_it_overrides_does():
    silent = []
    for module in public_modules():
        for name in sorted(public_names(module)):
            what = getattr(importlib.import_module(module), name)
            silent += [f"{module}.{name}"] if callable(what) and not what.__doc__ else []
            for own, member in vars(what).items() if isinstance(what, type) else ():
                if own[0] == "_" or not (inspect.isroutine(member) or isinstance(member, (property, classmethod))):
                    continue
                if not any(getattr(vars(base).get(own), "__doc__", None) for base in what.__mro__):
                    silent.append(f"{module}.{name}.{own}")
    assert silent == []


def test_what_pages_import_is_in_the_reference():
    known = {id(resolved(name)) for name in documented()}
    for page in [*PAGES, "README.md"]:
        for module, names in re.findall(r"^from (jepa_agent[\w.]*) import (.+)$", "".join(blocks(page, "python")), re.M):
            for name in names.split(", "):
                what = getattr(importlib.import_module(module), name)
                assert id(what) in known or module == "jepa_agent.cli", f"{page}: {module}.{name}"


def resolved(name):
    """What a full name of the reference stands for."""
    parts, found, cut = name.split("."), None, 0
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        break
    for part in parts[cut:]:
        found = getattr(found, part)
    return found


def test_every_name_of_the_reference_is_there():
    for name in documented():
        assert resolved(name) is not None


def test_the_drawing_of_the_floors_is_the_contract():
    contract = (ROOT / "pyproject.toml").read_text().partition("layers = [")[2].partition("]")[0]
    floors = [name for floor in re.findall(r'"(.*)"', contract) for name in floor.replace("jepa_agent.", "").split(" | ")]
    assert re.findall(r"<text[^>]*>(.*?)</text>", (DOCS / "images" / "floors.svg").read_text()) == floors


def test_every_page_is_in_the_navigation():
    navigation = (DOCS.parent / "mkdocs.yml").read_text().partition("\nnav:")[2]
    assert [page for page in PAGES if f" {page}\n" not in navigation] == []


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path):
    pytest.importorskip("mkdocstrings", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "jepa_agent.JEPA.learn" in (tmp_path / "site/api/agent.html").read_text()
    pages = list((tmp_path / "site").rglob("*.html"))
    drawn = sum(page.read_text().count("<math ") for page in pages)
    assert drawn == sum(language == "math" for page in PAGES for language, _, _ in fences(page))
    loaded = re.compile(r'<(?:script|img|link rel="?stylesheet"?)[^>]*(?:src|href)="?(https?:[^" >]*)')
    assert [found for page in pages for found in loaded.findall(page.read_text())] == []  # no other server is asked
