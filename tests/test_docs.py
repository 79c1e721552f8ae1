"""What the documentation says runs, and the reference leaves no public name out."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

import jepa_agent
from jepa_agent import callbacks, costs, planning
from jepa_agent.acting import mode_switch
from jepa_agent.acting.exploration import EXPLORATIONS
from jepa_agent.model.encoders import ENCODERS
from jepa_agent.model.memory import MEMORIES

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {page.relative_to(DOCS).as_posix(): page.read_text() for page in sorted(DOCS.rglob("*.md"))}
STEPS, RANDOM, BATCH = 60, 10, 32


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.S | re.M)


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


def test_the_commands_have_the_flags_that_pages_use():
    seen = 0
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                if not line.startswith("jepa-agent "):
                    continue
                verb, *words = shlex.split(line, comments=True)[1:]
                module = importlib.import_module(f"jepa_agent.cli.{verb.replace('-', '_')}")
                known = module.build_parser()._option_string_actions
                used = [word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]
                assert [flag for flag in used if flag not in known] == [], f"{page}: {line}"
                seen += 1
    assert seen >= 10


def documented():
    reference = "".join(text for page, text in PAGES.items() if page.startswith("api/"))
    return set(re.findall(r"^::: (\S+)", reference, re.M))


def test_every_public_name_is_in_the_reference():
    named = {name.rpartition(".")[2] for name in documented()}
    missing = {name for name in jepa_agent.__all__ if f"jepa_agent.{name}" not in documented()} - {"__version__"}
    assert missing == set()
    assert "jepa_agent.__version__" in PAGES["api/agent.md"]
    own = {name for name, what in vars(callbacks).items() if getattr(what, "__module__", "") == callbacks.__name__}
    planners = set(planning.__all__) - {"FOR_BOX", "FOR_CHOICES"}
    assert {*costs.__all__, *planners, *(name for name in own if name[0] != "_")} - named == set()


def test_every_name_of_the_reference_is_there():
    for name in documented():
        parts, found = name.split("."), None
        for cut in range(len(parts) - 1, 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:cut]))
            except ModuleNotFoundError:
                continue
            break
        for part in parts[cut:]:
            found = getattr(found, part)


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
