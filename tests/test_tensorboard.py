"""What event files hold: scores, the configuration as text and as hyperparameters, and pictures if asked for."""

import io
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml
from matplotlib.image import imread
from stable_baselines3.common.callbacks import EvalCallback, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from jepa_agent.acting.mode_switch import EveryK
from jepa_agent.callbacks import MediaCallback
from jepa_agent.cli import main
from jepa_agent.persistence.logs import _env_id
from jepa_agent.pictures.plane import draw_latents


def read(folder):
    """All that the event files of a folder hold, whatever there is of it."""
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0}).Reload()


def hparams(events):
    """Hyperparameters by name, and the tags of the scores that belong to them."""
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    told = HParamsPluginData.FromString(content).session_start_info.hparams
    experiment = HParamsPluginData.FromString(events.summary_metadata["_hparams_/experiment"].plugin_data.content)
    return (
        {name: getattr(value, value.WhichOneof("kind")) for name, value in told.items()},
        {metric.name.tag for metric in experiment.experiment.metric_infos},
    )


def configuration(events):
    return yaml.safe_load(events.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0])


def test_plain_learning_writes_configuration_and_final_score_without_any_callback(small, tmp_path):
    model = small("CartPole-v1", tensorboard_log=str(tmp_path), mode="actor", train_horizon=3)
    model.learn(70, log_interval=1000)  # so seldom that the logger itself writes no score
    events = read(tmp_path / "JEPA_1")
    told, scores = hparams(events)
    assert (told["env"], told["seed"], told["train_horizon"], told["model.latent_dim"]) == ("CartPole-v1", 0, 3, 16)
    assert scores == {"rollout/ep_rew_mean", "eval/mean_reward"}
    [score] = events.Scalars("rollout/ep_rew_mean")
    assert score.step == 70
    assert score.value == pytest.approx(np.mean([episode["r"] for episode in model.ep_info_buffer]))
    said = configuration(events)
    assert (said["algorithm"], said["mode"], said["train_horizon"], said["model"]["net_arch"]) == ("JEPA", "actor", 3, [32])
    assert "images" not in events.Tags() or not events.Tags()["images"]


def test_pictures_come_at_each_evaluation_and_training_is_the_same_without_them(small, tmp_path):
    agents = []
    for drawing in (False, True):
        model = small("Pendulum-v1", tensorboard_log=str(tmp_path / str(drawing)))
        media = MediaCallback(gym.make("Pendulum-v1"), max_steps=5) if drawing else None
        env = make_vec_env("Pendulum-v1", seed=1)
        model.learn(60, EvalCallback(env, callback_after_eval=media, n_eval_episodes=1, eval_freq=30, verbose=0))
        agents.append(model)
    events = read(tmp_path / "True" / "JEPA_1")
    assert set(events.Tags()["images"]) == {"media/episode", "media/latents"}
    for tag in events.Tags()["images"]:
        assert [image.step for image in events.Images(tag)] == [30, 60]
        first, second = (imread(io.BytesIO(image.encoded_image_string)) for image in events.Images(tag))
        assert first.shape[1] > first.shape[0] > 300
        assert first[..., :3].std() > 0.05
        assert not np.array_equal(first, second)
    assert [event.step for event in events.Scalars("eval/mean_reward")] == [30, 60]
    for plain, drawn in zip(*(agent.policy.state_dict().values() for agent in agents), strict=True):
        assert torch.equal(plain, drawn)
    assert torch.equal(*(agent.policy.generator.get_state() for agent in agents))


def test_the_map_shows_the_latest_steps_as_they_are_stored(small):
    model = small("CartPole-v1", mode="actor").learn(50)
    latents, cost, age = MediaCallback(gym.make("CartPole-v1"), points=10, recent=10)._recent_latents(model)
    assert age.tolist() == list(range(10))
    assert cost.tolist() == [-1.0] * 10
    last = torch.as_tensor(model.replay_buffer.observations[49 - 3], dtype=torch.float32)
    np.testing.assert_allclose(latents[3], model.world_model.encode(last)[0].detach(), atol=1e-5)


def test_the_map_says_what_its_dots_axes_and_colours_are():
    latents = np.random.default_rng(0).normal(size=(1200, 3)) * [3.0, 1.0, 0.0]
    figure = draw_latents(latents, np.full(1200, -1.0), np.arange(1200))
    assert figure.get_suptitle().startswith("1,200 recent steps, a dot for the latent of each; ")
    assert figure.get_suptitle().endswith("the two directions hold 100 % of their variance")
    cost, age, of_cost, of_age = figure.axes
    assert (cost.get_xlabel(), cost.get_ylabel()) == (age.get_xlabel(), "direction in which they differ second most")
    assert (of_cost.get_ylabel(), of_age.get_ylabel()) == (
        "cost of the step: minus its reward",
        "how many environment steps ago",
    )
    assert of_cost.get_yticks().tolist() == [-1.0]  # of one colour
    assert np.ptp(cost.collections[0].get_offsets()[:, 0]) > 2 * np.ptp(cost.collections[0].get_offsets()[:, 1])


def test_what_would_draw_at_every_step_is_refused_before_the_first(small):
    media = MediaCallback(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="each time it is called"):
        small("CartPole-v1").learn(30, callback=media)
    with pytest.warns(UserWarning, match="no TensorBoard log"):
        small("CartPole-v1").learn(30, callback=EveryNTimesteps(10, media))


def test_what_train_writes_holds_configuration_score_and_the_pictures_asked_for(tmp_path, capsys):
    train = ["train", "--env", "CartPole-v1", "-n", "60", "--eval-freq", "30", "--eval-episodes", "1", "--mode", "actor"]
    tiny = [
        "--agent.learning_starts",
        "20",
        "--agent.batch_size",
        "16",
        "--model.latent_dim",
        "16",
        "--model.net_arch",
        "[16]",
    ]
    assert main([*train, *tiny, "--tb-media", "--output", str(tmp_path / "run")]) == 0
    events = read(tmp_path / "run")
    told, _ = hparams(events)
    assert (told["env"], told["batch_size"]) == ("CartPole-v1", 16)
    assert configuration(events)["batch_size"] == 16
    assert [event.step for event in events.Scalars("eval/mean_reward")] == [30, 60]
    assert events.Scalars("rollout/ep_rew_mean")[-1].step == 60
    assert [image.step for image in events.Images("media/episode")] == [30, 60]
    capsys.readouterr()
    assert main([*train, *tiny, "--tb-media", "--eval-freq", "0", "--output", str(tmp_path / "none")]) == 2
    assert "--eval-freq 0 makes none" in capsys.readouterr().err


def test_a_logger_of_ones_own_gets_them_too(small, tmp_path):
    model = small("CartPole-v1", mode="actor")
    model.set_logger(configure(str(tmp_path), ["tensorboard"]))
    model.learn(30)
    assert configuration(read(tmp_path))["env"] == "CartPole-v1"


class Anonymous(gym.Env):
    """Made without `gymnasium.make`."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)


@pytest.mark.parametrize("kind", [DummyVecEnv, SubprocVecEnv])
def test_the_environment_is_named_wherever_it_runs(kind):
    for make, named in ((partial(gym.make, "CartPole-v1"), "CartPole-v1"), (Anonymous, "unknown")):
        env = VecMonitor(kind([lambda make=make: gym.wrappers.TimeLimit(make(), 5)]))
        assert _env_id(env) == named
        env.close()


def test_settings_of_kinds_that_no_file_knows_are_told_by_their_text(small, tmp_path):
    class Seed(int):
        """As the command line hands one over."""

    model = small("CartPole-v1", mode=EveryK(3), seed=Seed(7), tensorboard_log=str(tmp_path))
    model.learn(5)
    said = configuration(read(tmp_path / "JEPA_1"))
    assert (said["seed"], said["mode"]) == (7, "EveryK(k=3)")
