"""What must hold on a GPU; left out where there is none. The benchmark's script is tried on the CPU."""

import json

import pytest
import torch

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


def test_the_benchmark_measures_updates_and_plans_of_both_agents(tmp_path):
    found = gpu.measure("cpu", widths=[8], batches=[16], environments=[1, 3], repeats=1, inner=2)
    [update] = found["updates"]
    assert update["jepa_per_second"] > 0
    assert update["sac_per_second"] > 0
    assert [row["n_envs"] for row in found["plans"]] == [1, 3]
    assert json.dumps(found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_the_benchmark_says_in_one_line_that_there_is_no_gpu(capsys):
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "no CUDA device is seen" in capsys.readouterr().err
