"""What must hold on a GPU; left out where there is none. The benchmark's script is tried on the CPU."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3.common.utils import set_random_seed

from jepa_agent import JEPA
from jepa_agent.experiments import gpu

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
def test_an_agent_learns_plans_saves_and_loads_across_devices(env, tmp_path):
    model = JEPA("MlpPolicy", env, seed=0, device="cuda", learning_starts=40, batch_size=32).learn(120)
    assert next(model.world_model.parameters()).is_cuda
    obs = model.get_env().reset()
    for mode in ("actor", "planner", "auto_0.5"):
        model.set_mode(mode)
        action, _ = model.predict(obs, deterministic=True)
        assert action.shape[0] == 1
    model.set_mode("actor")
    model.save(tmp_path / "agent")
    there, here = model.predict(obs, deterministic=True)[0], JEPA.load(tmp_path / "agent", device="cpu")
    assert here.predict(obs, deterministic=True)[0] == pytest.approx(there, abs=1e-3)


@pytest.mark.cuda
@needs_cuda
def test_a_run_on_a_gpu_goes_on_from_its_checkpoint(tmp_path):
    model = JEPA("MlpPolicy", "Pendulum-v1", seed=0, device="cuda", learning_starts=40, batch_size=32).learn(100)
    model.save_checkpoint(tmp_path)
    again = JEPA.resume(tmp_path, "Pendulum-v1", device="cuda")
    again.learn(40, reset_num_timesteps=False)
    assert again.num_timesteps == 140


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
def test_a_captured_update_is_the_one_that_was_asked_for(env):
    def learned(capture: bool) -> JEPA:
        model = JEPA("MlpPolicy", env, seed=0, device="cuda", learning_starts=60, batch_size=32, capture=capture).learn(60)
        set_random_seed(0, using_cuda=True)
        model.train(6, 32)
        return model

    eager, captured = learned(False), learned(True)
    assert captured._captured
    for one, other in zip(eager.policy.parameters(), captured.policy.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.cuda
@needs_cuda
def test_a_captured_update_that_is_not_finite_changes_nothing():
    model = JEPA("MlpPolicy", "Pendulum-v1", seed=0, device="cuda", learning_starts=40, batch_size=32, capture=True).learn(
        60
    )
    before = [weight.clone() for weight in model.policy.state_dict().values()]
    model.replay_buffer.rewards[:] = np.nan
    model.train(2, 32)
    assert model._skipped_updates == 2
    assert all(torch.equal(one, other) for one, other in zip(before, model.policy.state_dict().values(), strict=True))


@pytest.mark.cuda
@needs_cuda
def test_a_captured_update_copies_its_measures_to_the_host_and_no_more():
    model = JEPA("MlpPolicy", "Pendulum-v1", seed=0, device="cuda", learning_starts=40, batch_size=32, capture=True).learn(
        60
    )
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        model.train(1, 32)
        torch.cuda.set_sync_debug_mode("default")
    places = [Path(warning.filename).name for warning in seen if "called a synchronizing" in str(warning.message)]
    # The measures of the update, and the temperature once a round; what is sampled is copied from the host.
    assert [place for place in places if place != "replay_buffer.py"] == ["agent.py"] * 2, places


def test_capture_is_of_no_effect_on_a_cpu(small):
    weights = [list(small("CartPole-v1", capture=capture).learn(40).policy.parameters()) for capture in (False, True)]
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def test_the_benchmark_measures_updates_and_plans_of_both_agents(tmp_path):
    found = gpu.measure("cpu", widths=[8], batches=[16], environments=[1, 3], repeats=1, inner=2)
    [update] = found["updates"]
    assert min(update[f"{name}_per_second"] for name in ("eager", "captured", "captured_tf32", "sac")) > 0
    assert [row["n_envs"] for row in found["plans"]] == [1, 3]
    assert json.dumps(found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_the_benchmark_says_in_one_line_that_there_is_no_gpu(capsys):
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "no CUDA device is seen" in capsys.readouterr().err
