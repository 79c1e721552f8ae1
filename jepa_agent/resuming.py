"""Going on exactly: checkpoints of a whole run, and an agent that continues one as the run that saved it did."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutReturn
from stable_baselines3.common.vec_env import VecEnv
from typing_extensions import Self

from jepa_agent import checkpoint, checkpoint_folder, run_state
from jepa_agent.checkpoint import CheckpointError, FormatError, told_of
from jepa_agent.checkpoint_folder import Entry
from jepa_agent.environments import seed_env
from jepa_agent.interruption import undisturbed
from jepa_agent.logs import lasting
from jepa_agent.replay_archive import count
from jepa_agent.saving import SavableAlgorithm


class ResumableAlgorithm(SavableAlgorithm):
    """An algorithm whose run can be stopped anywhere and continued from the last checkpoint.

    A checkpoint is a boundary: the episodes under way end there, as by a time limit, and new ones begin from a seed that
    the checkpoint holds. So the run that goes on and the one that is resumed from it see the same."""

    _saved: tuple[Path, Entry] | None = None  # the folder, and the checkpoint there that this run goes on from

    @undisturbed()
    def save_checkpoint(self, folder: str | Path, keep_last: int = 1, logs: Iterable[Path] = ()) -> None:
        """Add a checkpoint of the whole run to a folder, all or nothing, and drop all but the ``keep_last`` newest: what
        `save` writes, the replay buffer (only what is new of it since the last checkpoint there), normalisation, working
        memory and all random numbers. Call it between rollouts, as from ``_on_rollout_start``, or when not learning.

        The episodes under way end here. ``logs`` are files that grow with the run, of which the length is noted, for
        `checkpoint_folder.cut_logs`.
        """
        if keep_last < 1:
            raise ValueError(f"keep_last must be at least 1, got {keep_last}")
        folder, buffer = Path(folder), self.replay_buffer
        folder.mkdir(parents=True, exist_ok=True)
        self._end_episodes()
        known = self._known(folder)
        with checkpoint_folder.all_or_nothing(folder):
            chunks = checkpoint_folder.append_rows(folder, buffer, known.chunks if known else ())
            manifest, tensors = self._content(set())
            manifest["run"], state = run_state.gather(self)
            manifest["run"]["episode_seed"] = seed = self._episode_seed()
            name = checkpoint_folder.new_name("agent", self.num_timesteps)
            sizes = checkpoint_folder.log_sizes(logs)
            entry = Entry(self.num_timesteps, name, buffer.history, buffer.added, chunks, sizes)
            manifest["checkpoint"] = entry._asdict()  # should the index be damaged
            checkpoint.write(folder / name, "agent", manifest, {"tensors": tensors, "run": state})
            checkpoint_folder.commit(folder, entry, keep_last, known.agent if known else None)
        self._saved = (folder.resolve(), entry)
        if self.env is not None:
            seed_env(self.env, seed)

    def _known(self, folder: Path) -> Entry | None:
        """The checkpoint in a folder that this run goes on from."""
        if self._saved is None or self._saved[0] != folder.resolve() or self._saved[1].history != self.replay_buffer.history:
            return None
        return self._saved[1]

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        env: GymEnv,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
    ) -> Self:
        """The run as it was at the newest whole checkpoint in a folder of `save_checkpoint`; nothing in the files is run.

        ``learn(n, reset_num_timesteps=False)`` then goes on, bit for bit as the run that saved it. The environment must be
        made and wrapped as it was; `CheckpointError` if its spaces, its number or its VecNormalize differ, or if no
        checkpoint is whole. A damaged one is named in a warning, and the one before it is taken.
        """
        folder = Path(folder)
        damaged: list[Exception] = []
        for entry in reversed(checkpoint_folder.entries(folder)):
            try:
                model = cls._resume_from(folder, entry, env, device, custom_objects)
            except FormatError:
                raise
            except (CheckpointError, OSError) as error:
                damaged.append(error)
                continue
            for damage in damaged:
                warnings.warn(f"{damage}: going on from the checkpoint of step {entry.num_timesteps}", stacklevel=2)
            return model
        raise CheckpointError(str(damaged[0])) from damaged[0]

    @classmethod
    def _resume_from(
        cls,
        folder: Path,
        entry: Entry,
        env: GymEnv,
        device: torch.device | str,
        custom_objects: dict[str, Any] | None,
    ) -> Self:
        """The run as it was at one checkpoint."""
        content = checkpoint.read(folder / entry.agent, "agent")
        with told_of(folder / entry.agent):
            manifest = content.manifest
            model = cls._from_content(content, env, device, custom_objects or {})
            assert model.env is not None
            if model.n_envs != manifest["n_envs"]:
                raise ValueError(f"field 'n_envs': expected {manifest['n_envs']}, found {model.n_envs}")
            checkpoint_folder.restore_rows(folder, entry, model.replay_buffer)
            model._saved = (folder.resolve(), entry)
            run_state.restore(model, manifest["run"], content.members["run"])
            model._last_obs = None
            seed_env(model.env, int(manifest["run"]["episode_seed"]))
        return model

    def _episode_seed(self) -> int:
        """Equal for runs that are equal so far, different at every boundary."""
        drawn = np.random.SeedSequence([self.policy.generator.initial_seed(), self.num_timesteps]).generate_state(1)
        return int(drawn[0] >> 1)

    def _end_episodes(self) -> None:
        """End the episodes under way, as by a time limit."""
        self.replay_buffer.cut()
        if self.action_noise is not None:
            self.action_noise.reset()
        self._last_obs = None

    def _begin_episodes(self) -> None:
        """Reset the environments, with the seeds they were given, if any."""
        assert self.env is not None
        self._last_obs = self.env.reset()  # type: ignore[assignment]
        self._last_episode_starts = np.ones((self.env.num_envs,), dtype=bool)
        if self._vec_normalize_env is not None:
            self._last_original_obs = self._vec_normalize_env.get_original_obs()

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, *args: Any, **kwargs: Any) -> RolloutReturn:
        begun, added = self.num_timesteps, self.replay_buffer.added
        try:
            rollout = super().collect_rollouts(env, callback, *args, **kwargs)
            return rollout if rollout.continue_training else self._finish_step(rollout, callback.locals)
        except BaseException:
            # What was not stored has not happened: neither the step under way nor the evaluation due at it.
            self.num_timesteps = begun + (self.replay_buffer.added - added) * self.n_envs
            count(self.replay_buffer, self.replay_buffer.added)  # a row that was half stored is not there
            self._last_obs = None
            raise

    def _finish_step(self, rollout: RolloutReturn, step: Mapping[str, Any]) -> RolloutReturn:
        """Do what SB3 leaves out where a callback stops training: the ``step`` taken, known by the names it has in
        `collect_rollouts`, is stored and counted like any other."""
        noise, every, ended = step["action_noise"], step["log_interval"], np.flatnonzero(step["dones"])
        self._update_info_buffer(step["infos"], step["dones"])
        self._store_transition(
            step["replay_buffer"], step["buffer_actions"], step["new_obs"], step["rewards"], step["dones"], step["infos"]
        )
        self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        for index in ended:
            self._episode_num += 1
            if noise is not None:
                noise.reset(**({"indices": [index]} if self.n_envs > 1 else {}))
            if every is not None and self._episode_num % every == 0:
                self.dump_logs()
        return rollout._replace(n_episodes=rollout.n_episodes + len(ended))

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if reset_num_timesteps:
            self._state = None
        if reset_num_timesteps or self._last_obs is None:
            self.replay_buffer.cut()
        begun = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)
        self._logger = lasting(self._logger)
        return begun
