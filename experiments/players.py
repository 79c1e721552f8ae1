"""Players for planner benchmarks: a trained agent, or an exact model of the environment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from jepa_agent.acting.working_memory import WorkingMemory
from jepa_agent.agent import JEPA
from jepa_agent.experiments.evaluation import SeededEpisodes, side_by_side
from jepa_agent.experiments.exact_models import ExactModel
from jepa_agent.planning import Planner
from jepa_agent.types import Decision, PlanInit

State = tuple[np.ndarray, ...]
Obs = np.ndarray | dict[str, np.ndarray]


class Episode(NamedTuple):
    """The costs of an episode of T steps, and those that the player's plans predicted."""

    costs: np.ndarray  # (T,) = -reward
    predicted: np.ndarray  # (T,) cost of the plan at each step, by the player's own model
    terminated: bool
    beyond: float = 0.0  # predicted cost-to-go where a time limit ended the episode; else 0


class Player(ABC):
    """Plays episodes in several environments side by side, with a planner that can be exchanged.

    What a player carries from step to step is the ``state``: arrays whose first axis is the environment.
    """

    name: str
    env_id: str
    env_kwargs: dict[str, Any]
    identity: str | None = None  # distinguishes players of the same name, e.g. by a hash of the model file

    @abstractmethod
    def use(self, planner: Planner | None) -> None:
        """Plan with ``planner`` from now on; None to act without a search."""

    @abstractmethod
    def begin(self, n_envs: int) -> State:
        """Return the state of ``n_envs`` environments before their first step."""

    @abstractmethod
    def decide(self, obs: Obs, state: State) -> tuple[np.ndarray, Tensor, State]:
        """Choose actions.

        Args:
            obs: Observations ``(B, ...)``.
            state: State of the step before.

        Returns:
            Actions as the environments take them, the predicted cost ``(B,)`` of the plans that they begin, and the next
            state.
        """

    @abstractmethod
    def beyond(self, obs: Obs, state: State) -> Tensor:
        """Predict the cost-to-go from observations at which a time limit ended the episode.

        Args:
            obs: Last observations ``(B, ...)``.
            state: State of the step before.

        Returns:
            Costs ``(B,)``, as if the episode went on.
        """

    @abstractmethod
    def realised(self, episode: Episode) -> np.ndarray:
        """Return what was paid over the time span of each plan, to compare with ``episode.predicted``.

        Returns:
            Costs ``(T,)``; NaN where the episode was cut off before the end of the plan's span.
        """

    @abstractmethod
    def best_returns(self, obs: Obs, steps: int) -> np.ndarray | None:
        """Return the optimal returns.

        Args:
            obs: First observations ``(B, ...)``.
            steps: Length of the episodes in steps.

        Returns:
            Returns ``(B,)``; None where they are unknown.
        """


class TrainedAgent(Player):
    """A trained agent, with its world model, its actor's sequence as first proposal, and its own evaluation of plans.

    Args:
        model: The agent; its mode and planner are changed by `use`.
        name: Name in tables and figures.
        env_id: Gymnasium id of the environment.
        env_kwargs: Arguments of the environment.
        identity: Text that distinguishes agents of the same name.
    """

    def __init__(self, model: JEPA, name: str, env_id: str, env_kwargs: dict[str, Any], identity: str | None = None):
        self.model, self.name, self.env_id, self.env_kwargs = model, name, env_id, env_kwargs
        self.identity = identity

    def use(self, planner: Planner | None) -> None:
        """Act in Mode-2 with ``planner`` at every step, or in Mode-1 for None."""
        self.model.set_mode("actor" if planner is None else "planner")
        if planner is not None:
            self.model.set_planner(planner)

    def begin(self, n_envs: int) -> State:
        """Return empty working memories, packed."""
        return self.model.policy.recall(None, n_envs).pack()

    def decide(self, obs: Obs, state: State) -> tuple[np.ndarray, Tensor, State]:
        """Act with the policy; the predicted cost is the discounted cost of the plan and the cost-to-go after it."""
        decision, memory = self._act(obs, state)
        with torch.no_grad():
            predicted = self.model.world_model.trajectory_cost(memory.latent, memory.plan.unsqueeze(1)).squeeze(1)
        return self.model.policy.to_env(decision.action), predicted, memory.pack()

    def beyond(self, obs: Obs, state: State) -> Tensor:
        """Return the mean cost-to-go over the ensemble."""
        _, memory = self._act(obs, state)
        with torch.no_grad():
            return self.model.world_model.cost_to_go(memory.latent).mean(0)

    def _act(self, obs: Obs, state: State) -> tuple[Decision, WorkingMemory]:
        """Make one deterministic decision for a batch of observations."""
        policy = self.model.policy
        policy.set_training_mode(False)
        seen, _ = policy.obs_to_tensor(obs)
        # `len(state[0])` is the number of environments that are still running.
        return policy.act(seen, policy.recall(state, len(state[0])), deterministic=True)

    def realised(self, episode: Episode) -> np.ndarray:
        """Return discounted costs to the episode's end, and past a time limit the predicted cost-to-go."""
        total, ahead = np.empty(len(episode.costs)), episode.beyond
        for t in reversed(range(len(total))):
            total[t] = ahead = episode.costs[t] + self.model.world_model.gamma * ahead
        return total

    def best_returns(self, obs: Obs, steps: int) -> np.ndarray | None:
        """Return None: the optimal policy is unknown."""
        return None


class ExactPlayer(Player):
    """An exact model: plans at every step, starting from the rest of the last plan, without an actor or a cost-to-go.

    Args:
        model: Model of the environment.
        name: Name in tables and figures.
    """

    def __init__(self, model: ExactModel, name: str):
        self.model, self.name, self.env_id, self.env_kwargs = model, name, model.env_id, {}
        self.planner: Planner | None = None

    def _state(self, obs: Obs) -> Tensor:
        """Return the model's states of observations."""
        return self.model.encode(torch.as_tensor(obs, dtype=torch.float32))

    def use(self, planner: Planner | None) -> None:
        """Plan with ``planner`` from now on; None repeats the model's default actions."""
        self.planner = planner

    def begin(self, n_envs: int) -> State:
        """Return the model's default sequences as the plans of the step before."""
        horizon = self.planner.horizon if self.planner else 1
        return (self.model.actor_sequence(torch.zeros(n_envs, 1), horizon).numpy(),)

    def decide(self, obs: Obs, state: State) -> tuple[np.ndarray, Tensor, State]:
        """Search around the rest of the last plan and the default sequence; execute the result's first action."""
        z = self._state(obs)
        last = torch.from_numpy(state[0])
        # The plan of the step before moves on by one step; its last action is repeated.
        left = torch.cat([last[:, 1:], last[:, -1:]], dim=1)
        plans, cost = left, torch.zeros(len(z))
        if self.planner is not None:
            proposals = torch.stack([left, self.model.actor_sequence(z, left.shape[1])], dim=1)
            # The same seed at every decision, so that it depends on its state alone.
            init = PlanInit(proposals, torch.Generator().manual_seed(0))
            plan = self.planner.plan(lambda actions: self.model.trajectory_cost(z, actions), init)
            plans, cost = plan.actions, plan.cost
        return self.model.to_env(plans[:, 0]), cost, (plans.numpy(),)

    def beyond(self, obs: Obs, state: State) -> Tensor:
        """Return zeros: the model has no cost-to-go."""
        return torch.zeros(len(state[0]))

    def realised(self, episode: Episode) -> np.ndarray:
        """Return undiscounted costs over each plan's horizon; after a terminal state nothing more is paid."""
        assert self.planner is not None
        # Costs over a span are a difference of cumulative costs.
        paid = np.concatenate([[0.0], np.cumsum(episode.costs)])
        start = np.arange(len(episode.costs))
        end = start + self.planner.horizon
        total = paid[np.minimum(end, len(episode.costs))] - paid[start]
        # After a time limit costs would have gone on, so a span across it is unknown.
        return np.where((end > len(episode.costs)) & (not episode.terminated), np.nan, total)

    def best_returns(self, obs: Obs, steps: int) -> np.ndarray | None:
        """Return the negative optimal costs of the model."""
        return -self.model.least_cost(self._state(obs), steps).numpy()


def stacked(obs: list[Obs]) -> Obs:
    """Stack the observations of several environments.

    Args:
        obs: One observation per environment, all arrays or all dictionaries.

    Returns:
        An array ``(B, ...)``, or a dictionary of such arrays.
    """
    named = [one for one in obs if isinstance(one, dict)]
    if named:
        return {key: np.stack([one[key] for one in named]) for key in named[0]}
    return np.stack([np.asarray(one) for one in obs])


def play(player: Player, make: Callable[[], gym.Env], episodes: int, seed: int) -> list[Episode]:
    """Play whole episodes side by side, one per environment.

    Args:
        player: Player that decides.
        make: Builds one environment.
        episodes: Number of episodes.
        seed: Seed of the first episode; the k-th has ``seed + k``.
    """
    with side_by_side(make, episodes) as made:
        return _play(player, [SeededEpisodes(env, seed + k) for k, env in enumerate(made)])


def _play(player: Player, envs: list[SeededEpisodes]) -> list[Episode]:
    """Play one episode in each environment; ended ones leave the batch."""
    episodes = len(envs)
    obs = [env.reset()[0] for env in envs]
    state, running = player.begin(episodes), list(range(episodes))
    costs: list[list[float]] = [[] for _ in envs]
    predicted: list[list[float]] = [[] for _ in envs]
    ended, beyond = [False] * episodes, [0.0] * episodes
    while running:
        actions, promises, state = player.decide(stacked([obs[k] for k in running]), state)
        going = []
        for row, k in enumerate(running):
            obs[k], reward, ended[k], truncated, _ = envs[k].step(actions[row])
            costs[k].append(-float(reward))
            predicted[k].append(float(promises[row]))
            # A step may report both; then the task has ended, and nothing follows.
            if truncated and not ended[k]:
                beyond[k] = float(player.beyond(stacked([obs[k]]), tuple(field[row : row + 1] for field in state))[0])
            elif not ended[k]:
                going.append(row)
        if len(going) < len(running):
            running = [running[row] for row in going]
            # The state keeps only the rows of environments that are still running.
            state = tuple(field[going] for field in state)
    played = zip(costs, predicted, ended, beyond, strict=True)
    return [Episode(np.array(c), np.array(p), end, ahead) for c, p, end, ahead in played]


def gap(player: Player, episodes: list[Episode]) -> float:
    """Return the mean predicted less realised cost of plans.

    Args:
        player: Player that made the plans; knows the span of a plan.
        episodes: Episodes that it played.

    Returns:
        The gap in units of cost, NaN where no plan's cost is known. Below zero, plans cost more than predicted.
    """
    differences = np.concatenate([episode.predicted - player.realised(episode) for episode in episodes])
    return float(np.nanmean(differences)) if np.isfinite(differences).any() else float("nan")
