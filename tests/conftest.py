"""Small agents that train in seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gymnasium.spaces import Dict

from jepa_agent import JEPA

torch.set_num_threads(1)
SMALL = {"latent_dim": 16, "net_arch": [32], "ensemble_size": 2, "memory_size": 3}


@pytest.fixture
def small() -> Callable[..., JEPA]:
    """Build an agent with tiny networks: ``small(env, **settings)``."""

    def build(env: Any, **settings: Any) -> JEPA:
        kwargs = {**SMALL, **settings.pop("policy_kwargs", {})}
        defaults: dict[str, Any] = {"seed": 0, "device": "cpu", "learning_starts": 20, "batch_size": 32}
        policy = "MultiInputPolicy" if isinstance(getattr(env, "observation_space", None), Dict) else "MlpPolicy"
        return JEPA(settings.pop("policy", policy), env, policy_kwargs=kwargs, **{**defaults, **settings})

    return build
