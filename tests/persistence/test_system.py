"""What is asked of the operating system without psutil is what psutil says."""

import math
import os
import subprocess
import sys

import psutil
import pytest

from jepa_agent.persistence.system import process_exists, total_memory


def test_memory_is_that_of_the_machine(monkeypatch):
    assert total_memory() == psutil.virtual_memory().total
    monkeypatch.delattr(os, "sysconf")
    assert total_memory() == math.inf


def test_processes_are_told_from_those_that_are_over():
    over = subprocess.Popen([sys.executable, "-c", ""])
    assert process_exists(over.pid)  # it is not forgotten before somebody waits for it
    over.wait()
    for pid in (over.pid, os.getpid(), os.getppid(), 1, 0, -1, 2**22 + 1, 2**70):
        assert process_exists(pid) == (pid > 0 and pid < 2**62 and psutil.pid_exists(pid)), pid


def test_another_users_process_is_alive(monkeypatch):
    def refuse(pid, signum):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert process_exists(1)


@pytest.mark.parametrize("pid", [1, os.getpid()], ids=["another", "own"])
def test_no_signal_is_sent_where_it_would_end_the_process(monkeypatch, pid):
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(os, "kill", None)
    assert process_exists(pid)
