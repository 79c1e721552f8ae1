"""Episodes of a Minari data set in a replay buffer (Younis et al., 2024, https://minari.farama.org)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from jepa_agent.environments.observations import has_choices, is_finite
from jepa_agent.extras import needs
from jepa_agent.learning.replay_buffer import SequenceReplayBuffer
from jepa_agent.spaces import stored_actions

if TYPE_CHECKING:
    from minari import MinariDataset
    from minari.dataset.episode_data import EpisodeData


def open_dataset(name: str) -> MinariDataset:
    """Open a data set that lies on this machine, where Minari keeps them.

    Args:
        name: As ``D4RL/pointmaze/umaze-v2``.

    Raises:
        MissingExtraError: Minari is not installed.
        ValueError: There is no such data set; the message says how it is fetched.
    """
    with needs("minari"):
        import h5py  # noqa: F401 - what Minari reads files by
        import minari
    try:
        return minari.load_dataset(name)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"no Minari data set {name!r} on this machine: minari download {name}, if there is one") from error


def read_episodes(dataset: MinariDataset, buffer: SequenceReplayBuffer) -> None:
    """Replace the content of a buffer by a data set's episodes, or by the newest steps that fit.

    Args:
        dataset: What `open_dataset` returned, or ``minari.load_dataset``.
        buffer: Of one environment.

    Raises:
        ValueError: Other spaces, numbers that are not finite, options that there are not, or no step at all; the buffer is
            unchanged then.
    """
    for field in ("observation_space", "action_space"):
        wanted, found = getattr(buffer, field), getattr(dataset, field)
        if wanted != found:
            raise ValueError(f"data set {dataset.id!r}: expected the {field} {wanted}, found {found}")
    if not dataset.total_steps:
        raise ValueError(f"data set {dataset.id!r} has no step to learn from")
    for episode in dataset.iterate_episodes():  # all of them, before the first is stored
        _check(dataset, episode)
    buffer.reset()
    for episode in dataset.iterate_episodes():
        actions = np.asarray(episode.actions)
        buffer.add_episode(episode.observations, actions, episode.rewards, bool(episode.terminations[-1]))


def _check(dataset: MinariDataset, episode: EpisodeData) -> None:
    """Raise ``ValueError`` for an episode that cannot be learned from."""
    parts: dict[str, tuple[spaces.Space, Any]] = {"actions": (stored_actions(dataset.action_space), episode.actions)}
    if isinstance(dataset.observation_space, spaces.Dict):
        named = dataset.observation_space.spaces.items()
        parts.update({f"observations {key!r}": (space, episode.observations[key]) for key, space in named})
    else:
        parts["observations"] = (dataset.observation_space, episode.observations)
    for name, (space, values) in parts.items():
        if not is_finite(np.asarray(values)):
            raise ValueError(f"data set {dataset.id!r}: episode {episode.id} has {name} that are not finite")
        if not has_choices(space, np.asarray(values)):
            raise ValueError(f"data set {dataset.id!r}: episode {episode.id} has {name} outside {space}")
    if not is_finite(episode.rewards):
        raise ValueError(f"data set {dataset.id!r}: episode {episode.id} has rewards that are not finite")
