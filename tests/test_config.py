import inspect
import re

import pytest
from gymnasium.spaces import Box

from jepa_agent import JEPA
from jepa_agent.acting.exploration import make_exploration
from jepa_agent.acting.mode_switch import make_mode_switch
from jepa_agent.config import AgentConfig, ModelConfig, PlannerConfig, as_kwargs, did_you_mean, near_names
from jepa_agent.model.memory import make_memory
from jepa_agent.planning import make_planner


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: AgentConfig(learning_rate=-1), "learning_rate"),
        (lambda: AgentConfig(gamma=1.5), "gamma"),
        (lambda: AgentConfig(batch_size=0), "batch_size"),
        (lambda: PlannerConfig(horizon=0), "horizon"),
        (lambda: PlannerConfig(temperature=0.0), "temperature"),
        (lambda: ModelConfig(latent_dim=1), "latent_dim"),
        (lambda: ModelConfig(net_arch=()), "net_arch"),
    ],
)
def test_what_is_out_of_range_is_named(build, name):
    with pytest.raises(ValueError, match=name):
        build()


def test_every_setting_of_the_agent_is_read_by_the_algorithm_with_the_same_default():
    parameters = inspect.signature(JEPA.__init__).parameters
    for name, value in as_kwargs(AgentConfig()).items():
        assert parameters[name].default == value, name


def test_every_setting_has_help():
    for config in (AgentConfig, ModelConfig, PlannerConfig):
        for name in as_kwargs(config()):
            assert f"\n        {name}: " in config.__doc__, name


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("--eval_frq", ["--eval-freq"]),
        ("--eval", ["--eval-freq", "--eval-mode"]),
        ("--horizon", ["--planner.horizon"]),
        ("HORIZON", ["--planner.horizon"]),
        ("--timesteps", ["--n-timesteps"]),
        ("--zzz", []),
        ("", []),
    ],
)
def test_near_names_are_found_by_their_beginning_end_or_likeness(given, near):
    assert near_names(given, ["--eval-freq", "--eval-mode", "--n-timesteps", "--planner.horizon", "--seed"]) == near


def test_what_is_told_of_a_wrong_name_is_a_near_one_or_the_few_there_are():
    assert did_you_mean("cme", ["cem", "mppi"]) == "; did you mean cem?"
    assert did_you_mean("x", ["cem", "mppi"]) == "; choose one of cem, mppi"
    assert did_you_mean("x", [f"name{number}" for number in range(17)]) == ""


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: PlannerConfig(horizn=3), "PlannerConfig has no argument 'horizn'; did you mean horizon?"),
        (lambda: ModelConfig(latent=3), "ModelConfig has no argument 'latent'; did you mean latent_dim?"),
        (lambda: AgentConfig(ent_coef=0.1), "AgentConfig has no argument 'ent_coef': the actor's temperature"),
        (lambda: JEPA("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arc": [8]}), "JEPAPolicy has no .* mean net_arch?"),
    ],
)
def test_an_argument_that_is_mistyped_is_told_with_the_right_one(build, says):
    with pytest.raises(TypeError, match=re.escape(says) if ".*" not in says else says[:-1]):
        build()


@pytest.mark.parametrize(
    ("build", "near"),
    [
        (lambda: make_planner(PlannerConfig(kind="mpii"), Box(-1, 1, (1,))), "mppi"),
        (lambda: make_mode_switch("planer"), "planner"),
        (lambda: make_mode_switch("Every_4x"), "every_4"),
        (lambda: make_exploration("drfit", Box(-1, 1, (1,)), 1), "drift"),
        (lambda: make_memory("atention", 8, 1, 4), "attention"),
    ],
)
def test_a_part_that_is_mistyped_is_told_with_the_right_one(build, near):
    with pytest.raises(ValueError, match=near):
        build()
