import pickle

import numpy as np
import pytest
import torch
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.save_util import save_to_zip_file

from jepa_agent import JEPA
from jepa_agent.persistence import archive
from jepa_agent.persistence.archive import CheckpointError


class Payload:
    """Writes a file when unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.fixture
def saved(small, tmp_path):
    small("CartPole-v1").save(tmp_path / "agent.zip")
    return tmp_path / "agent.zip"


def rewrite(path, **changes):
    manifest, members = archive.read(path, "agent")
    archive.write(path, "agent", {**manifest, **changes}, members)


def test_a_file_of_sb3_with_a_payload_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "marker"
    save_to_zip_file(tmp_path / "sb3.zip", data={"policy_class": Payload(marker)}, params={"policy": {}})
    with pytest.raises(CheckpointError, match=r"sb3\.zip is a file of Stable-Baselines3"):
        JEPA.load(tmp_path / "sb3.zip")
    assert not marker.exists()


def test_a_pickled_buffer_is_refused_and_not_run(small, tmp_path):
    marker = tmp_path / "marker"
    (tmp_path / "buffer.pkl").write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(CheckpointError, match=r"buffer\.pkl"):
        small("CartPole-v1").load_replay_buffer(tmp_path / "buffer.pkl")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"class": "SAC"}, "'class': expected JEPA, found 'SAC'"),
        ({"observation_space": {"kind": "Discrete", "n": 3, "start": 0}}, "tensor 'policy/.*expected"),
        ({"action_space": {"kind": "Popen"}}, "Popen"),
        ({"counters": {"device": 1}}, "'counters'"),
        ({"arguments": {"policy_class": {"class": "os.system"}}}, "not a module"),
        ({"arguments": {"gamma": "high"}}, "gamma|not supported"),
        ({"optimizers": {}}, "'policy.optimizer' is missing"),
    ],
)
def test_a_manifest_that_does_not_fit_is_told_by_file_and_field(saved, changes, says):
    rewrite(saved, **changes)
    with pytest.raises(CheckpointError, match=says) as caught:
        JEPA.load(saved)
    assert "agent.zip" in str(caught.value)


def test_tensors_of_another_size_or_type_are_told_with_both(saved):
    manifest, members = archive.read(saved, "agent")
    name = next(name for name, tensor in members["tensors"].items() if tensor.dtype == torch.float32)
    for other in (torch.zeros(7, 7), members["tensors"][name].double()):
        archive.write(saved, "agent", manifest, {"tensors": {**members["tensors"], name: other}})
        with pytest.raises(CheckpointError, match=rf"{name}'?.*expected float32 .*, found float"):
            JEPA.load(saved)


def test_other_spaces_are_told_with_both(saved):
    with pytest.raises(CheckpointError, match=r"agent\.zip: field 'observation_space': expected Box.*found Box"):
        JEPA.load(saved, env="Pendulum-v1")


def test_what_rl_zoo3_hands_over_is_tolerated(saved):
    handed = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0}
    model = JEPA.load(saved, custom_objects=handed, buffer_size=1, seed=4)
    assert model.lr_schedule(1.0) == 0.0
    model.predict(np.zeros(4, np.float32))


def test_action_noise_of_sb3_need_not_be_handed_over(small, tmp_path):
    noise = NormalActionNoise(np.zeros(1), np.full(1, 0.1))
    small("Pendulum-v1", action_noise=noise).save(tmp_path / "agent")
    assert JEPA.load(tmp_path / "agent").action_noise._sigma == noise._sigma


def test_parameters_are_taken_from_a_file(small, saved):
    model, other = JEPA.load(saved, device="cpu"), small("CartPole-v1", seed=9)
    other.set_parameters(saved)
    assert all(torch.equal(a, b) for a, b in zip(other.policy.parameters(), model.policy.parameters(), strict=True))


def test_a_buffer_survives_also_in_one_of_another_size(small, tmp_path):
    model = small("CartPole-v1", learning_starts=1000, buffer_size=50).learn(70)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    newest = model.replay_buffer.rewards[(np.arange(70 - 30, 70)) % 50]
    for size in (30, 50, 200):
        other = small("CartPole-v1", learning_starts=1000, buffer_size=size)
        other.load_replay_buffer(tmp_path / "buffer.pkl")
        held = other.replay_buffer
        assert held.size() == min(size, 50)
        np.testing.assert_array_equal(held.rewards[(held.pos - 30 + np.arange(30)) % size], newest)
        assert held.dones[held.pos - 1] == 1, "what comes next does not follow"
        other.learn(5, reset_num_timesteps=False)


def test_a_buffer_of_other_spaces_is_refused(small, tmp_path):
    small("CartPole-v1", learning_starts=1000).learn(5).save_replay_buffer(tmp_path / "buffer")
    with pytest.raises(CheckpointError, match=r"buffer.*'observation_space'"):
        small("Pendulum-v1").load_replay_buffer(tmp_path / "buffer.zip")


def test_a_run_folder_is_told_from_an_agent(saved, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*run$"):
        JEPA.load(tmp_path / "run")
    (tmp_path / "run/last_model.zip").write_bytes(saved.read_bytes())
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*run; did you mean .*last_model\.zip\?"):
        JEPA.load(tmp_path / "run")
