"""A joint embedding predictive agent for Gymnasium, with the face of Stable-Baselines3."""

import jepa_agent.envs  # noqa: F401  (registers our environments)
from jepa_agent._version import __version__
from jepa_agent.algorithm import JEPA
from jepa_agent.policy import JEPAPolicy
from jepa_agent.world_model import WorldModel

__all__ = ["JEPA", "JEPAPolicy", "WorldModel", "__version__"]
