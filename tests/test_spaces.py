"""Every space that is taken works from construction to a saved copy; every other is refused with a way out."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from jepa_agent import JEPA
from jepa_agent.learning.replay_buffer import SequenceReplayBuffer, buffer_for, transition_bytes
from jepa_agent.spaces import ChoiceCode, action_code, check_spaces, num_choices

VECTOR = spaces.Box(-1, 1, (2,))


class Anything(gym.Env):
    """Random observations of a space, random rewards, episodes of nine steps; refuses actions from outside its space."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space
        self.left = 0
        observation_space.seed(0)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 9
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.left -= 1
        return self.observation_space.sample(), float(self.np_random.normal()), self.left == 0, False, {}


ACTIONS = {
    "Box asymmetric": spaces.Box(np.array([-3.0, 10.0], np.float32), np.array([-1.0, 10.5], np.float32)),
    "Box tiny": spaces.Box(np.float32(1.0), np.float32(1.0 + 2e-7), (1,)),
    "Box wide": spaces.Box(np.float32(-3e38), np.float32(3e38), (2,)),
    "Box scalar": spaces.Box(-1.0, 1.0, ()),
    "Box cube": spaces.Box(-1.0, 1.0, (2, 1, 2), np.float64),
    "Box float16": spaces.Box(-60000.0, 60000.0, (2,), np.float16),
    "Box int8": spaces.Box(-128, 127, (2,), np.int8),
    "Box int64": spaces.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (1,), np.int64),
    "Box uint8": spaces.Box(3, 5, (2, 2), np.uint8),
    "Discrete": spaces.Discrete(3, start=-1),
    "MultiDiscrete": spaces.MultiDiscrete([2, 4, 3]),
    "MultiDiscrete of one": spaces.MultiDiscrete([3]),
    "MultiDiscrete table": spaces.MultiDiscrete([[2, 3], [3, 2]], start=[[0, 1], [-5, 2]]),
    "MultiBinary": spaces.MultiBinary(3),
    "MultiBinary table": spaces.MultiBinary((2, 2)),
    "MultiBinary many": spaces.MultiBinary(40),
}


def check_life(small, tmp_path, observation_space, action_space, **settings):
    """Learn, predict alone and together, save, load, predict the same."""
    model = small(Anything(observation_space, action_space), **settings).learn(60)
    assert all(torch.isfinite(p).all() for p in model.policy.parameters())
    obs = [model.observation_space.sample() for _ in range(3)]
    together = {key: np.stack([o[key] for o in obs]) for key in obs[0]} if isinstance(obs[0], dict) else np.stack(obs)
    model.save(tmp_path / "agent")
    again = JEPA.load(tmp_path / "agent", env=Anything(observation_space, action_space), device="cpu")
    for mode in ("actor", "planner"):
        model.set_mode(mode)
        again.set_mode(mode)
        alone = [model.predict(o, deterministic=True)[0] for o in obs]
        assert all(action_space.contains(action) for action in alone), alone
        batch, _ = model.predict(together, deterministic=True)
        wide = isinstance(action_space, spaces.Box) and (np.ptp(action_space.high) + 1.0)
        np.testing.assert_allclose(batch, np.stack(alone), rtol=1e-4, atol=1e-4 * wide)
        np.testing.assert_array_equal(again.predict(together, deterministic=True)[0], batch)
    again.learn(10)
    return model


@pytest.mark.parametrize("action_space", ACTIONS.values(), ids=ACTIONS.keys())
def test_an_action_space_from_construction_to_a_saved_copy(small, tmp_path, action_space):
    check_life(small, tmp_path, VECTOR, action_space)


@pytest.mark.parametrize("action_space", ACTIONS.values(), ids=ACTIONS.keys())
def test_actions_go_to_the_networks_and_back_unharmed(action_space):
    code = action_code(action_space)
    action_space.seed(0)
    actions = np.stack([action_space.sample() for _ in range(50)])
    vectors = code.from_env(actions)
    assert vectors.shape == (50, code.dim)
    back = code.to_env(vectors)
    assert back.dtype == action_space.dtype
    if isinstance(code, ChoiceCode):
        assert vectors.sum(-1).tolist() == [len(num_choices(action_space))] * 50
        np.testing.assert_array_equal(back, actions)
    else:
        extent = action_space.high.astype(float) - action_space.low.astype(float)
        assert (np.abs(back.astype(float) - actions.astype(float)) <= 1e-3 * extent).all()
        ends = np.stack([action_space.low, action_space.high])
        assert code.from_env(ends).reshape(2, -1).tolist() == [[-1.0] * code.dim, [1.0] * code.dim]
        assert all(action_space.contains(end) for end in code.to_env(torch.tensor([[-1.0], [1.0]]).expand(2, code.dim)))


def test_integers_of_a_box_are_all_within_reach():
    code = action_code(spaces.Box(3, 5, (1,), np.uint8))
    assert code.to_env(torch.tensor([[-1.0], [-0.4], [0.4], [0.6], [1.0]])).ravel().tolist() == [3, 4, 4, 5, 5]


def test_the_ends_of_the_widest_integers_are_not_mistaken_for_each_other():
    code = action_code(spaces.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (1,), np.int64))
    # The largest float below 2**63 is 2**63 - 1024; 2**63 itself would turn into the most negative integer.
    assert code.to_env(torch.tensor([[1.0], [-1.0]])).tolist() == [[2**63 - 1024], [-(2**63)]]


def test_the_buffer_keeps_choices_as_the_environment_took_them(small):
    action_space = ACTIONS["MultiDiscrete table"]
    model = small(Anything(VECTOR, action_space)).learn(30)
    buffer = model.replay_buffer
    assert all(action_space.contains(row.reshape(2, 2)) for row in buffer.actions[:30, 0])
    batch = buffer.window(np.array([4]), np.array([0]), 3)
    np.testing.assert_array_equal(model.policy.to_env(batch.action[0]), buffer.actions[4:7, 0].reshape(3, 2, 2))


def test_integer_boxes_are_stored_as_scaled_floats(small):
    buffer = small(Anything(VECTOR, ACTIONS["Box int8"])).learn(30).replay_buffer
    assert buffer.actions.dtype == np.float32
    assert 0.0 < np.abs(buffer.actions[:30] % 1.0).max() < 1.0


@pytest.mark.parametrize(
    ("action_space", "planner"),
    [
        (spaces.MultiBinary(4), "ExhaustivePlanner"),
        (spaces.MultiDiscrete([4, 5, 2]), "ExhaustivePlanner"),
        (spaces.MultiBinary(12), "CategoricalCEM"),
        (spaces.Discrete(1000), "CategoricalCEM"),
    ],
    ids=str,
)
def test_all_combinations_are_planned_over_where_they_are_few(small, action_space, planner):
    model = small(Anything(VECTOR, action_space))
    assert type(model.policy.planner).__name__ == planner
    assert model.policy.planner.num_choices == num_choices(action_space)


REFUSED_ACTIONS = {
    "unbounded": (spaces.Box(-np.inf, np.inf, (1,)), "unbounded.*TransformAction"),
    "half bounded": (spaces.Box(0, np.inf, (1,)), "unbounded.*TransformAction"),
    "no extent": (spaces.Box(np.array([0.0, 1.0]), np.array([1.0, 1.0])), "without extent.*TransformAction"),
    "too wide": (spaces.Box(-1.7e308, 1.7e308, (1,), np.float64), "RescaleAction"),
    "empty": (spaces.Box(-1, 1, (0,)), "no number"),
    "too many": (spaces.Discrete(10**6), "1,000,000 options.*ActionWrapper"),
    "Tuple": (spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)]), "ActionWrapper"),
    "Dict": (spaces.Dict({"a": spaces.Discrete(2)}), "ActionWrapper"),
    "Text": (spaces.Text(5), "ActionWrapper"),
    "Graph": (spaces.Graph(spaces.Discrete(2), None), "ActionWrapper"),
    "Sequence": (spaces.Sequence(spaces.Discrete(2)), "ActionWrapper"),
}


@pytest.mark.parametrize(("action_space", "says"), REFUSED_ACTIONS.values(), ids=REFUSED_ACTIONS.keys())
def test_other_action_spaces_are_refused_with_a_way_out(action_space, says):
    with pytest.raises(ValueError, match=f"(?s)action space .* is not supported: .*{says}"):
        check_spaces(VECTOR, action_space)


@pytest.mark.parametrize("kind", ["unbounded", "Tuple"])
def test_they_are_refused_before_any_wrapper_can_trip_over_them(small, kind):
    with pytest.raises(ValueError, match="is not supported"):
        small(Anything(VECTOR, REFUSED_ACTIONS[kind][0]))


PICTURE = spaces.Box(0, 255, (3, 20, 24), np.uint8)
OBSERVATIONS = {
    "Box float64": spaces.Box(-1, 1, (3,), np.float64),
    "Box scalar": spaces.Box(-1, 1, ()),
    "Box cube": spaces.Box(-1, 1, (2, 1, 3)),
    "Box huge": spaces.Box(-1e30, 1e30, (2,)),
    "Box wider than a float32": spaces.Box(-1e300, 1e300, (2,), np.float64),
    "Box unbounded": spaces.Box(-np.inf, np.inf, (2,)),
    "Box int64": spaces.Box(-(10**15), 10**15, (2,), np.int64),
    "Box int8": spaces.Box(-128, 127, (2,), np.int8),
    "Box uint16": spaces.Box(0, 65535, (2,), np.uint16),
    "Box large": spaces.Box(-1, 1, (1200,)),
    "Discrete": spaces.Discrete(4, start=-2),
    "MultiDiscrete": spaces.MultiDiscrete([3, 2], start=[1, -1]),
    "MultiBinary": spaces.MultiBinary(5),
    "MultiBinary table": spaces.MultiBinary((2, 3)),
    "image channels first": PICTURE,
    "image channels last": spaces.Box(0, 255, (20, 24, 3), np.uint8),
    "image grey and tiny": spaces.Box(0, 255, (5, 7, 1), np.uint8),
    "Dict": spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (16, 18, 3), np.uint8),
            "where.it is": spaces.Box(-1, 1, (2,), np.float64),
            "which": spaces.Discrete(3, start=5),
            "bits": spaces.MultiBinary(2),
            "dice": spaces.MultiDiscrete([2, 6]),
        }
    ),
    "Dict of goals": spaces.Dict({k: spaces.Box(-1, 1, (2,)) for k in ("observation", "achieved_goal", "desired_goal")}),
    "Dict of images": spaces.Dict({"left": PICTURE, "right": PICTURE}),
}


@pytest.mark.parametrize("observation_space", OBSERVATIONS.values(), ids=OBSERVATIONS.keys())
def test_an_observation_space_from_construction_to_a_saved_copy(small, tmp_path, observation_space):
    model = check_life(small, tmp_path, observation_space, spaces.Discrete(2))
    stored = model.replay_buffer.observations
    parts = stored if isinstance(stored, dict) else {"": stored}
    for key, array in parts.items():
        assert array.dtype == (observation_space[key] if key else observation_space).dtype


def test_images_without_normalisation_are_floats_of_any_range(small, tmp_path):
    settings = {"policy_kwargs": {"normalize_images": False}}
    model = check_life(small, tmp_path, spaces.Box(-1, 1, (18, 16, 3)), spaces.Discrete(2), **settings)
    assert model.world_model.encoder.features.image_keys == [""]


def test_windows_of_a_dict_are_those_of_its_parts(small):
    space = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3, start=4)})
    model = small(Anything(space, spaces.Discrete(2))).learn(40)
    buffer = model.replay_buffer
    batch = buffer.window(np.array([3, 11]), np.array([0, 0]), 4)
    for key, shape in (("a", (2, 5, 2)), ("b", (2, 5))):
        stored = (buffer.observations[key][:, 0], buffer.next_observations[key][:, 0])
        expected = np.stack([[stored[0][start], *stored[1][start : start + 4]] for start in (3, 11)]).reshape(shape)
        np.testing.assert_array_equal(batch.obs[:, :][key], expected)
        np.testing.assert_array_equal(batch.obs[:, 0][key], expected[:, 0])
        np.testing.assert_array_equal(batch.obs[:, 1:3][key], expected[:, 1:3])
        rows, steps = torch.tensor([1, 0]), torch.tensor([0, 4])
        np.testing.assert_array_equal(batch.obs[rows, steps][key], expected[rows, steps])


def test_windows_are_indexed_as_a_tensor_of_them_would_be(small):
    buffer = small(Anything(VECTOR, spaces.Discrete(2))).learn(40).replay_buffer
    obs = buffer.window(np.array([3, 11]), np.array([0, 0]), 4).obs
    before, after = (torch.as_tensor(stored[[3, 11], 0]) for stored in (buffer.observations, buffer.next_observations))
    whole = obs[:, :]
    torch.testing.assert_close(whole[:, :2], torch.stack([before, after], dim=1).reshape(whole[:, :2].shape))
    for index in (slice(None), (slice(None), 0), (slice(None), slice(1, 3)), (torch.tensor([1, 0]), torch.tensor([0, 4]))):
        torch.testing.assert_close(obs[index], whole[index])


REFUSED_OBSERVATIONS = {
    "Tuple": (spaces.Tuple([spaces.Discrete(2)]), "FlattenObservation"),
    "nested Dict": (spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)})}), "'a' is nested.*FlattenObservation"),
    "Text in a Dict": (spaces.Dict({"a": VECTOR, "words": spaces.Text(5)}), "'words': .*TransformObservation"),
    "Sequence": (spaces.Sequence(spaces.Discrete(2)), "pads it"),
    "Graph": (spaces.Graph(spaces.Discrete(2), None), "features of fixed size"),
    "empty Dict": (spaces.Dict({}), "empty"),
    "empty Box": (spaces.Box(-1, 1, (0, 3)), "no number"),
    "table of choices": (spaces.MultiDiscrete([[2, 2], [2, 2]]), "one axis.*FlattenObservation"),
    "too many": (spaces.Discrete(10**9), "TransformObservation"),
}


@pytest.mark.parametrize(("observation_space", "says"), REFUSED_OBSERVATIONS.values(), ids=REFUSED_OBSERVATIONS.keys())
def test_other_observation_spaces_are_refused_with_a_way_out(observation_space, says):
    with pytest.raises(ValueError, match=f"(?s)observation space .* is not supported: .*{says}"):
        check_spaces(observation_space, spaces.Discrete(2))


def test_relabelling_of_goals_is_refused_with_the_reason(small):
    with pytest.raises(ValueError, match=r"HerReplayBuffer.*leave replay_buffer_class out"):
        small(Anything(OBSERVATIONS["Dict of goals"], VECTOR), replay_buffer_class=HerReplayBuffer)


def test_targets_are_of_pictures_as_they_were_seen(small):
    model = small(Anything(spaces.Box(0, 255, (3, 64, 64), np.uint8), spaces.Discrete(2)))
    model.policy.set_training_mode(True)
    assert model.world_model.encoder.training
    assert not model.world_model_target.encoder.training


def test_a_buffer_for_other_observations_is_refused(small):
    with pytest.raises(ValueError, match="must be a DictSequenceReplayBuffer"):
        small(Anything(OBSERVATIONS["Dict of goals"], VECTOR), replay_buffer_class=SequenceReplayBuffer)


@pytest.mark.parametrize("kind", ["Box float64", "image channels first", "Dict"])
@pytest.mark.parametrize("action_kind", ["Box int8", "MultiDiscrete table"])
def test_the_memory_a_transition_takes_is_known_beforehand(kind, action_kind):
    spaces_ = OBSERVATIONS[kind], ACTIONS[action_kind]
    buffer = buffer_for(spaces_[0])(50, *spaces_, device="cpu")
    held = [part for value in vars(buffer).values() for part in (value.values() if isinstance(value, dict) else [value])]
    assert sum(part.nbytes for part in held if isinstance(part, np.ndarray)) == 50 * transition_bytes(*spaces_)
