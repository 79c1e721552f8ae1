"""The benchmark's arithmetic; the times themselves are measured by hand."""

import gc
import json
from contextlib import ExitStack

import gymnasium as gym
import pytest
import torch

from jepa_agent.cli import main
from jepa_agent.experiments import speed


@pytest.fixture(scope="module")
def agent():
    sizes = {"latent_dim": 8, "net_arch": [16], "ensemble_size": 2}
    with ExitStack() as opened:
        yield speed._agent("Pendulum-v1", opened, policy_kwargs=sizes, infonce_coef=0.0)  # which compares all rows


def test_operations_are_counted_forwards_and_backwards(agent):
    # A window more is the same products once more, so the count is proportional to the batch ...
    assert speed.update_gflop(agent, 64) == pytest.approx(2 * speed.update_gflop(agent, 32))
    # ... and more than three times what the predictor alone does forwards.
    forwards = 2 * agent.settings.train_horizon * 64 * (9 * 16 + 16 * 8) / 1e9
    assert speed.update_gflop(agent, 64) > 3 * forwards


def test_parts_are_those_of_an_update_and_leave_the_agent_as_it_was(agent):
    parts = speed.update_parts(agent, 32, updates=3)
    assert set(parts) == {"sample", "representation", "value", "actor", "optimiser", "rest"}
    assert all(ms > 0 for name, ms in parts.items() if name != "rest")
    assert "_fit_actor" not in vars(agent)
    assert "step" not in vars(agent.policy.optimizer)


def test_sections_close_the_environments_of_their_agents(monkeypatch):
    opened, closed = [], []

    class Counted(gym.Wrapper):
        def __init__(self, env):
            super().__init__(env)
            opened.append(self)

        def close(self):
            closed.append(self)
            super().close()

    monkeypatch.setattr(gym, "make", lambda env, make=gym.make, **kwargs: Counted(make(env, **kwargs)))
    monkeypatch.setattr(speed, "milliseconds", lambda call, repeats, inner: 1.0)
    speed._run_section(speed._WITH_AGENTS["predict"])
    assert len(opened) == 2
    assert closed == opened[::-1]
    with pytest.raises(ZeroDivisionError):
        speed._run_section(lambda stack: speed._build(speed.SAC, "Pendulum-v1", stack, buffer_size=1) and 1 / 0)
    assert len(closed) == len(opened) == 3


def test_timing_takes_the_median_and_forgives_the_first_call():
    waits = iter([10_000_000, 10, 10, 3_000_000, 10, 10])
    assert speed.milliseconds(lambda: sum(range(next(waits))), repeats=5, inner=1) < 1.0


def test_the_full_buffer_has_gone_round_and_is_sampled_everywhere():
    buffer = speed._full_buffer(500)
    batch = buffer.sample_sequences(64, 6)
    assert buffer.size() == 500
    assert batch.mask.shape == (64, 6)
    assert 0 < (batch.mask == 0).sum() < batch.mask.numel()  # some windows meet an episode's end


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with speed.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_nothing_is_kept_that_grows_with_the_run(small):
    def tensors() -> int:
        gc.collect()
        return sum(isinstance(kept, torch.Tensor) for kept in gc.get_objects())

    model = small("Pendulum-v1").learn(100)
    before = tensors()
    model.learn(100, reset_num_timesteps=False)
    assert tensors() == before


def test_the_verb_prints_and_saves_what_was_measured(monkeypatch, tmp_path, capsys):
    update = {"env": "E", "batch_size": 256, "default": True, "ms": 8.0, "ms_per_env_step": 4.0, "sac_ms": 10.0}
    update |= {"ratio_per_env_step": 0.4, "roofline_fraction": 0.35, "parts_ms": {"sample": 0.25}}
    result = {
        "cpu": "Some CPU",
        "matmul_gflops": [100.0, 101.0],
        "peak_memory_mb": 500.0,
        "update": [update],
        "plan": [{"env": "E", "planner": "MPPI", "n_envs": 8, "ms": 24.0, "ms_per_env": 3.0}],
        "predict": [{"agent": "SAC", "us": 150.0}],
        "images": {"shape": [64, 64, 3], "batch_size": 192, "update_ms": 123.0, "actor_ms": 1.25, "planner_ms": 6.5},
        "training": [{"env": "E", "steps_per_cpu_second": 99.0}],
        "buffer": {"size": 1_000_000, "sample_ms": 0.2, "memory_ratio": 1.01},
        "growth": [{"what": "plan", "quantity": "horizon", "value": 10, "ms": 7.5}],
    }
    monkeypatch.setattr("jepa_agent.cli.speed.measure", lambda report: report("update") or result)
    path = tmp_path / "new" / "speed.json"
    assert main(["speed", "--output", str(path)]) == 0
    out = capsys.readouterr().out
    for shown in ("Some CPU", "101 GFLOP/s", "35 %", "24.00", "1,000,000", "7.50", "123.00"):
        assert shown in out, shown
    assert json.loads(path.read_text()) == {"command": f"jepa-agent speed --output {path}", **result}


def test_the_verb_refuses_a_folder_before_measuring(tmp_path, capsys):
    assert main(["speed", "--output", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
