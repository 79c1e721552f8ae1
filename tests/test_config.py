import inspect

import pytest

from jepa_agent import JEPA
from jepa_agent.config import AgentConfig, ModelConfig, PlannerConfig, as_kwargs


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
