"""A joint embedding predictive agent for Gymnasium, with the face of Stable-Baselines3."""

import jepa_agent.envs  # noqa: F401  (registers our environments)
from jepa_agent._version import __version__
from jepa_agent.agent import JEPA
from jepa_agent.model.world_model import WorldModel
from jepa_agent.policy import JEPAPolicy

__all__ = ["JEPA", "JEPAPolicy", "WorldModel", "__version__"]
