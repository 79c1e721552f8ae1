"""What environments, users, planners and files give is of the form and of the numbers that were promised, or refused."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnvWrapper, VecNormalize

from jepa_agent.cli import main
from jepa_agent.environments import EndOnBadObservation, RefuseBadSteps
from jepa_agent.observations import check_form

BOX = spaces.Box(-10, 10, (2,))
PARTS = spaces.Dict({"numbers": BOX, "choice": spaces.Discrete(3, start=1)})


class Steps(gym.Env):
    """Episodes of five steps; ``given`` maps a number of steps ever made to what stands for the observation there, ``paid`` to
    what stands for the reward."""

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
        with pytest.raises(ValueError, match=says):
            for _ in range(3):
                env.reset()
                for _ in range(5):
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
    with pytest.raises(ValueError, match="state given to predict.* not finite"):
        model.predict(obs, state)
    action, state = model.predict(obs, state, episode_start=np.array([False, True]))
    assert all(np.isfinite(part).all() for part in state)


@pytest.mark.parametrize("mode", ["actor", "planner"])
def test_no_action_is_returned_that_is_not_finite(small, mode):
    model = small(Steps(actions=spaces.Box(-1, 1, (1,))), mode=mode)
    next(model.world_model.actor.parameters()).data.fill_(np.nan)  # as a damaged file might have it
    with pytest.raises(ValueError, match="not finite"):
        model.predict(np.zeros(2, np.float32), deterministic=True)
