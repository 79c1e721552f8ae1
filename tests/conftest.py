"""Small agents that train in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.spaces import Dict

from jepa_agent import JEPA

torch.set_num_threads(1)
FAST = (
    *("acting/", "envs/", "learning/", "model/", "planning/", "objectives/test_readout.py", "persistence/test_archive.py"),
    *("persistence/test_codec.py", "test_config.py", "test_house.py", "test_tensor_ops.py"),
)
SMALL = {"latent_dim": 16, "net_arch": [32], "ensemble_size": 2, "memory_size": 3}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is tested as a part on its own as ``fast``, all else as ``slow``."""
    for item in items:
        place = item.path.relative_to(Path(__file__).parent).as_posix()
        item.add_marker(pytest.mark.fast if place.startswith(FAST) else pytest.mark.slow)


@pytest.fixture
def small() -> Callable[..., JEPA]:
    """Build an agent with tiny networks: ``small(env, **settings)``."""

    def build(env: Any, **settings: Any) -> JEPA:
        kwargs = {**SMALL, **settings.pop("policy_kwargs", {})}
        defaults: dict[str, Any] = {"seed": 0, "device": "cpu", "learning_starts": 20, "batch_size": 32}
        policy = "MultiInputPolicy" if isinstance(getattr(env, "observation_space", None), Dict) else "MlpPolicy"
        return JEPA(settings.pop("policy", policy), env, policy_kwargs=kwargs, **{**defaults, **settings})

    return build
