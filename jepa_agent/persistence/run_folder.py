"""Exact resumption: checkpoints of a whole run, and an agent that continues one bit for bit.

At a checkpoint the episodes under way end, as by a time limit, and new ones begin from a seed that the checkpoint holds.
So the run that continues and the run that is resumed from the checkpoint see the same episodes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv

from jepa_agent.environments.guards import seed_env
from jepa_agent.interruption import undisturbed
from jepa_agent.persistence import agent_file, archive, run_state
from jepa_agent.persistence.archive import CheckpointError, FormatError, as_checkpoint_error
from jepa_agent.persistence.checkpoint_folder import (
    Entry,
    all_or_nothing,
    append_rows,
    commit,
    entries,
    log_sizes,
    new_name,
    restore_rows,
)
from jepa_agent.persistence.checks import Agent


class SavedAt(NamedTuple):
    """The checkpoint that a run continues from.

    Args:
        folder: The folder of checkpoints, resolved.
        entry: The checkpoint's entry in the index.
    """

    folder: Path
    entry: Entry


@undisturbed()
def save_checkpoint(model: Agent, folder: Path, keep_last: int, logs: Iterable[Path]) -> None:
    """Add a checkpoint of the whole run to a folder, all or nothing; see `JEPA.save_checkpoint`.

    Args:
        model: The agent; its episodes end here.
        folder: The folder of checkpoints; it is created if missing.
        keep_last: Number of checkpoints of this run to keep.
        logs: Files that grow with the run; their present sizes are recorded for `cut_logs`.

    Raises:
        ValueError: ``keep_last`` is below 1.
        OSError: A file cannot be written; the earlier checkpoints are intact.
    """
    if keep_last < 1:
        raise ValueError(f"keep_last must be at least 1, got {keep_last}")
    buffer = model.replay_buffer
    folder.mkdir(parents=True, exist_ok=True)
    # Before the rows are written, since it marks the newest ones as ends of episodes.
    model.end_episodes()
    known = _previous_entry(model, folder)
    with all_or_nothing(folder):
        chunks = append_rows(folder, buffer, known.chunks if known else ())
        manifest, tensors = agent_file.contents(model)
        manifest["run"], state = run_state.gather(model)
        manifest["run"]["episode_seed"] = seed = _episode_seed(model)
        name = new_name("agent", model.num_timesteps)
        entry = Entry(model.num_timesteps, name, buffer.history, buffer.added, chunks, log_sizes(logs))
        manifest["checkpoint"] = entry._asdict()  # a copy, in case the index gets damaged
        archive.write(folder / name, "agent", manifest, {"tensors": tensors, "run": state})
        # Last: the checkpoint exists only once the index lists it.
        commit(folder, entry, keep_last, known.agent if known else None)
    model.saved_at = SavedAt(folder.resolve(), entry)
    # The same seed as in the file, so that this run and a resumed one begin the same episodes.
    if model.env is not None:
        seed_env(model.env, seed)


def _previous_entry(model: Agent, folder: Path) -> Entry | None:
    """Return the checkpoint in a folder that this run continues from, if any."""
    saved = model.saved_at
    # Rows of another history are not this buffer's; none of them can be reused.
    if saved is None or saved.folder != folder.resolve() or saved.entry.history != model.replay_buffer.history:
        return None
    return saved.entry


def _episode_seed(model: Agent) -> int:
    """Return a seed for the next episodes: equal for runs that were equal so far, different at every checkpoint."""
    # Hashed from seed and step count, so no generator of the run is advanced by saving.
    drawn = np.random.SeedSequence([model.policy.generator.initial_seed(), model.num_timesteps]).generate_state(1)
    return int(drawn[0] >> 1)


def resume(
    cls: type[OffPolicyAlgorithm],
    folder: Path,
    env: GymEnv,
    device: torch.device | str,
    custom_objects: Mapping[str, Any],
) -> Any:
    """Load the run at the newest intact checkpoint in a folder; see `JEPA.resume`.

    Args:
        cls: The class to create: the saved one or a subclass of it.
        folder: The folder of checkpoints.
        env: The environment, made and wrapped as when saved.
        device: The device of the weights.
        custom_objects: Constructor arguments that override the saved ones.

    Returns:
        The agent, an instance of ``cls``.

    Raises:
        FileNotFoundError: There is no checkpoint.
        CheckpointError: No checkpoint can be loaded with these arguments; the message is about the newest one.
        FormatError: A checkpoint is of a version that cannot be read.
    """
    damaged: list[Exception] = []
    for entry in reversed(entries(folder)):
        try:
            model = _resume_from(cls, folder, entry, env, device, custom_objects)
        # Not damaged, but of another version: an older checkpoint would lose progress silently.
        except FormatError:
            raise
        except (CheckpointError, OSError) as error:
            damaged.append(error)
            continue
        for damage in damaged:
            warnings.warn(f"{damage}: going on from the checkpoint of step {entry.num_timesteps}", stacklevel=3)
        return model
    raise CheckpointError(str(damaged[0])) from damaged[0]


def _resume_from(
    cls: type[OffPolicyAlgorithm],
    folder: Path,
    entry: Entry,
    env: GymEnv,
    device: torch.device | str,
    custom_objects: Mapping[str, Any],
) -> Any:
    """Load the run at one checkpoint."""
    content = archive.read(folder / entry.agent, "agent")
    with as_checkpoint_error(folder / entry.agent):
        manifest = content.manifest
        model = agent_file.build_agent(cls, content, env, device, custom_objects)
        if model.n_envs != manifest["n_envs"]:
            raise ValueError(f"field 'n_envs': expected {manifest['n_envs']}, found {model.n_envs}")
        restore_rows(folder, entry, model.replay_buffer)
        model.saved_at = SavedAt(folder.resolve(), entry)
        # After everything that may draw random numbers, such as the initialisation of networks.
        run_state.restore(model, manifest["run"], content.members["run"])
        # SB3 resets the environments when there is no last observation.
        model._last_obs = None
        seed_env(model.env, int(manifest["run"]["episode_seed"]))
    return model
