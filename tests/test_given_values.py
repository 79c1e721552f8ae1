"""What environments, users, planners and files give is of the form and of the numbers that were promised, or refused."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnvWrapper, VecNormalize

from jepa_agent import JEPA
from jepa_agent.acting.gain_model import GainModel
from jepa_agent.callbacks import ResumableEvalCallback
from jepa_agent.cli import main
from jepa_agent.environments.guards import EndOnBadObservation, RefuseBadSteps
from jepa_agent.environments.observations import check_form
from jepa_agent.learning.replay_buffer import SequenceReplayBuffer
from jepa_agent.objectives.costs import GoalCost
from jepa_agent.objectives.readout import Readout
from jepa_agent.persistence.archive import CheckpointError
from jepa_agent.planning import ExhaustivePlanner, RandomShooting

BOX = spaces.Box(-10, 10, (2,))
PARTS = spaces.Dict({"numbers": BOX, "choice": spaces.Discrete(3, start=1)})


class Steps(gym.Env):
    """Episodes of five steps; ``given`` and ``paid`` map a number of steps ever made to the observation and reward there."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    def __init__(self, given=None, paid=None, space=BOX, actions=None, render_mode=None):
        self.given, self.paid, self.steps = given or {}, paid or {}, 0
        self.observation_space, self.action_space = space, actions or spaces.Discrete(2)
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.t, self.steps = self.t + 1, self.steps + 1
        obs = self.given.get(self.steps, self.observation_space.sample())
        return obs, self.paid.get(self.steps, 1.0), self.t == 5, False, {}

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)


NAN = np.full(2, np.nan, np.float32)
INF = np.array([0, np.inf], np.float32)


# ---------------------------------------------------------------------- environments


@pytest.mark.parametrize(
    ("given", "paid", "says"),
    [
        ({33: NAN}, {}, "environment 0, step 33: the observation is not finite"),
        ({}, {33: np.nan}, "environment 0, step 33: the reward is not finite"),
        ({35: INF}, {}, "environment 0, step 35: the last observation is not finite"),
        ({}, {33: 1e60}, "environment 0, step 33: the reward is not finite"),
    ],
)
def test_what_is_not_finite_enters_no_statistics_of_a_wrapper(small, given, paid, says):
    env = VecNormalize(DummyVecEnv([lambda: Steps(given, paid)]))
    model = small(env)
    with pytest.raises(ValueError, match=says):
        model.learn(60)
    moments = [env.obs_rms.mean, env.obs_rms.var, env.ret_rms.mean, env.ret_rms.var]
    assert all(np.isfinite(value).all() for value in moments)
    model.learn(20, reset_num_timesteps=False)


class Spoils(VecEnvWrapper):
    """A wrapper that divides by zero once."""

    def reset(self):
        self.steps = 0
        return self.venv.reset()

    def step_wait(self):
        obs, rewards, dones, infos = self.venv.step_wait()
        self.steps += 1
        return obs, rewards * (np.nan if self.steps == 7 else 1.0), dones, infos


def test_what_wrappers_make_of_it_is_looked_at_too(small):
    with pytest.raises(ValueError, match="environment 0, step 7: the reward is not finite"):
        small(Spoils(DummyVecEnv([Steps]))).learn(20)


def test_workers_are_looked_at_as_environments_in_this_process_are(small):
    def workers(*makers):
        return SubprocVecEnv(list(makers), start_method="fork")

    other = workers(Steps, lambda: Steps(actions=spaces.Discrete(3)))
    wide = workers(lambda: Steps({3: np.zeros((1, 2), np.float32)}))
    spoiled = workers(Steps, lambda: Steps({3: NAN}))
    try:
        with pytest.raises(ValueError, match=r"environment 1 has the action_space Discrete\(3\)"):
            small(other)
        with pytest.raises(ValueError, match=r"must have the shape \(1, 2\), found \(1, 1, 2\)"):
            small(wide).learn(20)
        with pytest.raises(ValueError, match="environment 1, step 6: the observation is not finite"):
            small(spoiled).learn(20)
    finally:
        for env in (other, wide, spoiled):
            env.close()


@pytest.mark.parametrize(
    ("space", "obs", "says"),
    [
        (spaces.MultiBinary(3), [0, 1, 5], r"must be of MultiBinary\(3\), found \[0, 1, 5\]"),
        (spaces.MultiDiscrete([3, 2], start=[1, 0]), [0, 0], "must be of MultiDiscrete"),
        (spaces.Discrete(3, start=-1), 2, "must be of Discrete"),
        (spaces.Discrete(3), 1.5, "must be of Discrete"),
        (PARTS, {"numbers": np.zeros(2), "choice": 0}, "'choice' must be of Discrete"),
        (BOX, None, "must hold numbers, found None"),
        (BOX, [[1], [1, 2]], "must hold numbers"),
        (BOX, np.array([0j, 1j]), "must hold numbers"),
        (spaces.Box(0, 1, (64, 64)), np.zeros((2, 64)), r"^[^\n]{1,200}$"),
    ],
)
def test_observations_of_another_form_get_one_line(space, obs, says):
    with pytest.raises(ValueError, match=says):
        check_form(obs, space)


def test_observations_of_a_space_are_of_its_form():
    for space in (
        BOX,
        PARTS,
        spaces.MultiBinary([2, 2]),
        spaces.MultiDiscrete([3, 2], start=[5, 0]),
        spaces.Discrete(4, start=-9),
    ):
        space.seed(0)
        for _ in range(20):
            check_form(space.sample(), space)
    check_form(np.full(2, 99.0), BOX)  # beyond its bounds, as many environments are
    check_form(2.0, spaces.Discrete(3))


def test_episodes_that_end_at_what_is_not_finite_are_counted_and_logged(small, tmp_path):
    env = EndOnBadObservation(Steps({23: NAN, 31: INF}, {42: 1e60}))
    with pytest.warns(UserWarning, match="the episode ends"):
        model = small(env).learn(60, log_interval=1000)
    assert env.bad_observations == model._bad_observations == 3
    assert model.logger.name_to_value["rollout/bad_observations"] == 3
    model.save(tmp_path / "agent")
    assert type(model).load(tmp_path / "agent")._bad_observations == 3


# ---------------------------------------------------------------------- evaluating


def test_an_evaluation_ends_where_something_is_not_finite_by_episode_and_step():
    for given, paid, says in (
        ({8: NAN}, {}, "episode 2, step 3: the observation is not finite"),
        ({}, {8: np.nan}, "episode 2, step 3: the reward is not finite: nan"),
        ({8: np.zeros(1)}, {}, r"episode 2, step 3: the environment's observation must have the shape"),
    ):
        env = RefuseBadSteps(Steps(given, paid))
        for steps in (5, 2):
            env.reset()
            for _ in range(steps):
                env.step(0)
        with pytest.raises(ValueError, match=says):
            env.step(0)


@pytest.mark.parametrize("verb", ["evaluate", "explain", "enjoy", "plan-bench"])
def test_every_verb_that_plays_tells_of_it_in_one_line(small, tmp_path, capsys, verb):
    small(Steps()).save(tmp_path / "agent.zip")
    # plan-bench takes the agent's latents at first, which a NaN would spoil without a word.
    gym.register("Spoiled-v0", lambda **more: Steps({3: NAN} if verb == "explain" else {}, {3: np.nan}, **more))
    more = {"evaluate": ["--episodes", "1"], "plan-bench": ["--quick", "--episodes", "1", "--horizon", "1"]}.get(verb, [])
    output = [] if verb == "evaluate" else ["--output", str(tmp_path / "out")]
    try:
        assert main([verb, str(tmp_path / "agent.zip"), "--env", "Spoiled-v0", *more, *output]) == 2
    finally:
        del gym.registry["Spoiled-v0"]
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    assert "episode 1, step 3" in told


def test_what_is_not_finite_in_an_evaluation_while_training_is_kept_out_of_its_results(tmp_path, capsys):
    gym.register("SpoiledLater-v0", lambda: Steps({}, {8: np.nan}))  # the second evaluation's; training ends its episodes
    call = ["train", "--env", "SpoiledLater-v0", "-n", "20", "--eval-freq", "5", "--eval-episodes", "1", "--seed", "0"]
    try:
        assert main([*call, "--agent.learning_starts", "30", "--output", str(tmp_path / "run")]) == 1
    finally:
        del gym.registry["SpoiledLater-v0"]
    assert "the reward is not finite" in capsys.readouterr().out
    assert (tmp_path / "run/last_model.zip").is_file()
    assert np.isfinite(np.load(tmp_path / "run/evaluations.npz")["results"]).all()


# ---------------------------------------------------------------------- predict


@pytest.mark.parametrize(
    ("space", "obs", "says"),
    [
        (BOX, np.zeros(3), r"must have the shape \(2,\), found \(3,\)"),
        (BOX, np.zeros((1, 1, 2)), "must have the shape"),
        (BOX, "up", "must hold numbers"),
        (BOX, None, "must hold numbers"),
        (BOX, np.array([[0, 0], [0, np.nan]]), "is not finite"),
        (spaces.Discrete(3), 3, r"must be of Discrete\(3\), found 3"),
        (spaces.Discrete(3), np.array([0, -1]), r"must be of Discrete\(3\)"),
        (spaces.Discrete(3), 1.5, r"must be of Discrete\(3\)"),
        (spaces.MultiDiscrete([2, 2]), np.array([[0, 1], [0, 2]]), "must be of MultiDiscrete"),
        (PARTS, {"numbers": np.zeros(2)}, r"parts \['choice', 'numbers'\], found \['numbers'\]"),
        (PARTS, np.zeros(2), r"parts \['choice', 'numbers'\], found ndarray"),
        (PARTS, {"numbers": np.zeros((2, 2)), "choice": np.array(1)}, r"'choice' must have the shape \(2,\)"),
        (PARTS, {"numbers": np.zeros(2), "choice": 4}, r"'choice' must be of Discrete\(3, start=1\)"),
        (PARTS, {"numbers": NAN, "choice": 1}, "is not finite"),
    ],
)
def test_predict_refuses_what_is_not_of_the_space(small, space, obs, says):
    model = small(Steps(space=space), mode="actor")
    with pytest.raises(ValueError, match=f"the observation given to predict.* {says}"):
        model.predict(obs, deterministic=True)


def test_predict_takes_lists_rows_and_images_with_their_channels_at_either_end(small):
    assert small(Steps()).predict([0.0, 1.0])[0].shape == ()
    assert small(Steps(space=PARTS)).predict({"numbers": np.zeros((3, 2)), "choice": np.ones(3)})[0].shape == (3,)
    images = small(Steps(space=spaces.Box(0, 255, (16, 16, 3), np.uint8)))
    for shape in ((16, 16, 3), (3, 16, 16)):
        assert images.predict(np.zeros(shape, np.uint8))[0].shape == ()
        assert images.predict(np.zeros((2, *shape), np.uint8))[0].shape == (2,)


def test_predict_refuses_a_state_that_is_not_finite_unless_it_is_forgotten(small):
    model = small(Steps(), mode="planner")
    obs = np.zeros((2, 2), np.float32)
    _, state = model.predict(obs)
    state[0][1] = np.nan
    with pytest.raises(ValueError, match=r"state given to predict\(\) holds .* not finite"):
        model.predict(obs, state)
    _, state = model.predict(obs, state, episode_start=np.array([False, True]))
    assert all(np.isfinite(part).all() for part in state)


@pytest.mark.parametrize("mode", ["actor", "planner"])
def test_no_action_is_returned_that_is_not_finite(small, mode):
    model = small(Steps(actions=spaces.Box(-1, 1, (1,))), mode=mode)
    for world_model in (model.world_model, model.world_model_target):  # as a damaged file might have it
        next(world_model.actor.parameters()).data.fill_(np.nan)
    with pytest.raises(ValueError, match="not finite"):
        model.predict(np.zeros(2, np.float32), deterministic=True)


# ---------------------------------------------------------------------- planners


@pytest.mark.parametrize(
    ("actions", "spoil", "says"),
    [
        (
            spaces.Box(-2, 2, (1,)),
            lambda plan: plan._replace(actions=plan.actions * torch.nan),
            "gave actions that are not fin",
        ),
        (spaces.Box(-2, 2, (1,)), lambda plan: plan._replace(mean=plan.mean * torch.inf), "gave mean that are not finite"),
        (
            spaces.Box(-2, 2, (1,)),
            lambda plan: plan._replace(actions=plan.actions * 0 + 2),
            "gave actions up to 2, expected",
        ),
        (
            spaces.Box(-2, 2, (1,)),
            lambda plan: plan._replace(actions=plan.actions[:, 0]),
            r"gave actions of shape \(1, 1\), expected \(1, 3, 1\)",
        ),
        (
            spaces.Discrete(3, start=4),
            lambda plan: plan._replace(actions=plan.actions * 0),
            "gave actions that are no choices",
        ),
        (
            spaces.Discrete(3, start=4),
            lambda plan: plan._replace(actions=plan.actions * 4),
            "gave actions that are no choices",
        ),
    ],
)
def test_a_plan_that_cannot_be_executed_is_told_by_its_planner(small, actions, spoil, says):
    base = ExhaustivePlanner if isinstance(actions, spaces.Discrete) else RandomShooting

    class Mine(base):
        def plan(self, cost_fn, init):
            return spoil(super().plan(cost_fn, init))

    planner = Mine(num_choices=(3,), horizon=3) if base is ExhaustivePlanner else Mine(num_samples=4, horizon=3)
    model = small(Steps(actions=actions), planner=planner, mode="planner")
    with pytest.raises(ValueError, match=f"Mine {says}"):
        model.predict(np.zeros(2, np.float32))


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("rewards", np.nan, "rows 'rewards': 1 numbers are not finite"),
        ("observations/numbers", -np.inf, "rows 'observations/numbers': 2 numbers are not finite"),
        (
            "next_observations/choice",
            7,
            r"rows 'next_observations/choice': expected options of Discrete\(3, start=1\), found 1 to 7",
        ),
        ("actions", 2, r"rows 'actions': expected options of Discrete\(2\), found 0 to 2"),
    ],
)
def test_experience_that_cannot_be_learned_from_is_not_loaded(small, tmp_path, column, value, says):
    model = small(Steps(space=PARTS)).learn(15)
    name, _, key = column.partition("/")
    array = getattr(model.replay_buffer, name)
    (array[key] if key else array)[3] = value
    model.save_replay_buffer(tmp_path / "rows")
    fresh = small(Steps(space=PARTS))
    with pytest.raises(CheckpointError, match=says):
        fresh.load_replay_buffer(tmp_path / "rows")
    assert fresh.replay_buffer.size() == 0


def test_an_agent_with_damaged_numbers_is_not_loaded_and_the_checkpoint_before_is_gone_on_with(small, tmp_path):
    model = small(Steps(), mode="actor").learn(30)
    model.save_checkpoint(tmp_path / "run", keep_last=2)
    model.learn(10, reset_num_timesteps=False)
    next(model.world_model.parameters()).data[0] = np.nan
    model.save(tmp_path / "agent")
    model.save_checkpoint(tmp_path / "run", keep_last=2)
    with pytest.raises(CheckpointError, match=r"agent: tensor 'policy/world_model.*: \d+ of \d+ numbers are not finite"):
        JEPA.load(tmp_path / "agent")
    with pytest.warns(UserWarning, match="going on from the checkpoint of step 30"):
        assert JEPA.resume(tmp_path / "run", Steps()).num_timesteps == 30


# ---------------------------------------------------------------------- learning


def test_a_buffer_that_is_too_small_leaves_no_run_folder(tmp_path, capsys):
    call = ["train", "--env", "JEPA/ConstantReward-v0", "-n", "60", "--agent.buffer_size", "5", "--n-envs", "2"]
    assert main([*call, "--output", str(tmp_path / "run")]) == 2
    assert "buffer_size 5 keeps 2 steps of each of 2 environment(s)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


class Normed(BaseFeaturesExtractor):
    """Keeps statistics of all it sees while learning."""

    def __init__(self, space):
        super().__init__(space, features_dim=2)
        self.norm = torch.nn.BatchNorm1d(2)

    def forward(self, obs):
        return self.norm(obs)


def test_a_skipped_update_leaves_the_statistics_of_a_features_extractor(small, monkeypatch):
    model = small(Steps(), policy_kwargs={"features_extractor_class": Normed}, mode="actor").learn(30)
    before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    monkeypatch.setattr(model, "_is_finite", lambda terms: False)
    model.train(1, 16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.policy.state_dict().items())


def test_the_largest_rewards_there_are_stop_no_learning(small):
    model = small(Steps({}, dict.fromkeys(range(20, 60), -3e38)), mode="actor", batch_size=8).learn(60)
    assert model._skipped_updates == 0
    assert model._n_updates > 30
    assert all(tensor.isfinite().all() for tensor in model.policy.state_dict().values())


def test_a_step_that_was_not_finite_is_in_no_window():
    buffer = SequenceReplayBuffer(20, BOX, spaces.Discrete(2), n_envs=2)
    obs, nothing = np.zeros((2, 2), np.float32), np.zeros(2)
    for step in range(6):
        bad = step == 2
        infos = [{}, {"bad_observation": True, "TimeLimit.truncated": True} if bad else {}]
        buffer.add(obs, obs, np.zeros((2, 1)), nothing, np.array([False, bad]), infos)
    buffer.cut()
    found = buffer.window(np.array([0, 0, 2, 3]), np.array([0, 1, 1, 1]), 4, past=2)
    assert found.mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]]
    assert found.terminated.sum() == 0
    assert found.past.mask[3].tolist() == [0, 0]


def test_searches_that_are_not_finite_teach_no_gain():
    model = GainModel(2)
    model.learn(torch.tensor([[1.0, 2.0], [1.0, torch.nan], [1.0, 1e30]]), torch.tensor([3.0, 1.0, 1.0]))
    model.learn(torch.ones(2, 2), torch.tensor([torch.inf, 1e25]))
    assert model.mean == 3.0
    assert model(torch.ones(1, 2)).isfinite().all()


def test_the_error_of_a_readout_of_huge_features_is_a_number():
    z = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert Readout(z, 1e25 * z[:, :1]).error.isfinite().all()


def test_a_schedule_that_gives_no_learning_rate_is_told_before_it_ruins_the_weights(small):
    model = small(Steps(), mode="actor", learning_rate=lambda left: 1e-3 if left > 0.5 else float("nan"))
    with pytest.raises(ValueError, match=r"learning_rate is nan at step 3[01]"):
        model.learn(60)
    assert all(tensor.isfinite().all() for tensor in model.policy.state_dict().values())


@pytest.mark.parametrize("name", ["learning_starts", "batch_size"])
def test_a_buffer_that_holds_less_than_is_asked_of_it_gets_a_line(small, name):
    with pytest.warns(UserWarning, match=f"buffer_size 30 is less than {name} 40"):
        small(Steps(), buffer_size=30, **{"learning_starts": 20, "batch_size": 8, name: 40})


@pytest.mark.parametrize(("reward", "says"), [(None, "found None"), ([1.0, 2.0], "found"), ("much", "found much")])
def test_a_reward_that_is_no_number_is_told(small, reward, says):
    with pytest.raises(ValueError, match=f"environment 0, step 3: the environment's reward must be a number, {says}"):
        small(DummyVecEnv([lambda: Steps({}, {3: reward})])).learn(10)


def test_a_reward_in_an_array_of_its_own_is_a_number(small):
    assert small(DummyVecEnv([lambda: Steps({}, {3: np.ones(1)})])).learn(10).replay_buffer.rewards[2] == 1


def test_statistics_of_a_wrapper_that_are_not_finite_are_not_gone_on_with(small, tmp_path):
    env = VecNormalize(DummyVecEnv([Steps]))
    model = small(env).learn(20)
    model.save_checkpoint(tmp_path)
    env.obs_rms.mean[:] = np.nan
    model.save_checkpoint(tmp_path, keep_last=1)
    with pytest.raises(CheckpointError, match="tensor 'observation/mean': 2 of 2 numbers are not finite"):
        JEPA.resume(tmp_path, VecNormalize(DummyVecEnv([Steps])))


def test_goals_and_ends_that_are_not_finite_are_refused(small):
    model = small(Steps()).learn(20)
    with pytest.raises(ValueError, match=r"the goal must be one observation .* not finite"):
        model.set_cost(GoalCost(INF))
    with pytest.raises(ValueError, match="end_cost must be a finite number, got nan"):
        model.set_cost(GoalCost(np.zeros(2)), end_cost=np.nan)
    assert model.cost is None


def test_an_evaluation_of_ones_own_environment_is_looked_at_too(small, tmp_path):
    env = DummyVecEnv([lambda: Steps({}, {7: np.inf})])
    evaluation = ResumableEvalCallback(env, seed=1, log_path=str(tmp_path), eval_freq=10, n_eval_episodes=2)
    with pytest.raises(ValueError, match=r"environment 0.*: the reward is not finite"):
        small(Steps(), mode="actor").learn(20, callback=evaluation)
    assert not (tmp_path / "best_model.zip").exists()
