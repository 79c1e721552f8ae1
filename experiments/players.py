"""Who plays when planners are compared: a trained agent, or an exact model of the environment."""

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
    """What happened, and what each plan had promised."""

    costs: np.ndarray  # (T,) = -reward
    predicted: np.ndarray  # (T,) cost of the plan made at each step, as its model saw it
    terminated: bool
    beyond: float = 0.0  # what the player expects to pay after a time limit


class Player(ABC):
    """Plays episodes side by side with a planner of anyone's choice. What lasts from step to step is the ``state``, arrays
    whose first axis is the environment."""

    name: str
    env_id: str
    env_kwargs: dict[str, Any]
    identity: str | None = None  # tells apart what its name does not

    @abstractmethod
    def use(self, planner: Planner | None) -> None:
        """Plan by ``planner`` from now on; ``None`` is to act without searching."""

    @abstractmethod
    def begin(self, n_envs: int) -> State:
        """The state before a first step."""

    @abstractmethod
    def decide(self, obs: Obs, state: State) -> tuple[np.ndarray, Tensor, State]:
        """Actions for observations ``(B, ...)``, the predicted cost ``(B,)`` of the plans they begin, and the next state."""

    @abstractmethod
    def beyond(self, obs: Obs, state: State) -> Tensor:
        """What it expects to pay ``(B,)`` from observations ``(B, ...)`` on, though a time limit ends the episode there."""

    @abstractmethod
    def realised(self, episode: Episode) -> np.ndarray:
        """What each plan's span of time did cost ``(T,)``, to be held against ``predicted``; NaN where that is not known."""

    @abstractmethod
    def best_returns(self, obs: Obs, steps: int) -> np.ndarray | None:
        """The best returns there are from first observations ``(B, ...)``; None where nobody knows them."""


class TrainedAgent(Player):
    """A trained agent: its world model, its actor's own sequence as the first proposal, its way to evaluate plans."""

    def __init__(self, model: JEPA, name: str, env_id: str, env_kwargs: dict[str, Any], identity: str | None = None):
        self.model, self.name, self.env_id, self.env_kwargs = model, name, env_id, env_kwargs
        self.identity = identity

    def use(self, planner: Planner | None) -> None:
        self.model.set_mode("actor" if planner is None else "planner")
        if planner is not None:
            self.model.set_planner(planner)

    def begin(self, n_envs: int) -> State:
        return self.model.policy.recall(None, n_envs).pack()

    def decide(self, obs: Obs, state: State) -> tuple[np.ndarray, Tensor, State]:
        decision, memory = self._act(obs, state)
        with torch.no_grad():
            predicted = self.model.world_model.trajectory_cost(memory.latent, memory.plan.unsqueeze(1)).squeeze(1)
        return self.model.policy.to_env(decision.action), predicted, memory.pack()

    def beyond(self, obs: Obs, state: State) -> Tensor:
        _, memory = self._act(obs, state)
        with torch.no_grad():
            return self.model.world_model.cost_to_go(memory.latent).mean(0)

    def _act(self, obs: Obs, state: State) -> tuple[Decision, WorkingMemory]:
        policy = self.model.policy
        policy.set_training_mode(False)
        seen, _ = policy.obs_to_tensor(obs)
        return policy.act(seen, policy.recall(state, len(state[0])), deterministic=True)

    def realised(self, episode: Episode) -> np.ndarray:
        total, ahead = np.empty(len(episode.costs)), episode.beyond
        for t in reversed(range(len(total))):
            total[t] = ahead = episode.costs[t] + self.model.world_model.gamma * ahead
        return total

    def best_returns(self, obs: Obs, steps: int) -> np.ndarray | None:
        return None


class ExactPlayer(Player):
    """An exact model: a search at every step around what is left of the last plan; no actor and no cost-to-go."""

    def __init__(self, model: ExactModel, name: str):
        self.model, self.name, self.env_id, self.env_kwargs = model, name, model.env_id, {}
        self.planner: Planner | None = None

    def _state(self, obs: Obs) -> Tensor:
        return self.model.encode(torch.as_tensor(obs, dtype=torch.float32))

    def use(self, planner: Planner | None) -> None:
        self.planner = planner

    def begin(self, n_envs: int) -> State:
        horizon = self.planner.horizon if self.planner else 1
        return (self.model.actor_sequence(torch.zeros(n_envs, 1), horizon).numpy(),)

    def decide(self, obs: Obs, state: State) -> tuple[np.ndarray, Tensor, State]:
        z = self._state(obs)
        last = torch.from_numpy(state[0])
        left = torch.cat([last[:, 1:], last[:, -1:]], dim=1)
        plans, cost = left, torch.zeros(len(z))
        if self.planner is not None:
            proposals = torch.stack([left, self.model.actor_sequence(z, left.shape[1])], dim=1)
            init = PlanInit(proposals, torch.Generator().manual_seed(0))
            plan = self.planner.plan(lambda actions: self.model.trajectory_cost(z, actions), init)
            plans, cost = plan.actions, plan.cost
        return self.model.to_env(plans[:, 0]), cost, (plans.numpy(),)

    def beyond(self, obs: Obs, state: State) -> Tensor:
        return torch.zeros(len(state[0]))

    def realised(self, episode: Episode) -> np.ndarray:
        assert self.planner is not None
        paid = np.concatenate([[0.0], np.cumsum(episode.costs)])
        start = np.arange(len(episode.costs))
        end = start + self.planner.horizon
        total = paid[np.minimum(end, len(episode.costs))] - paid[start]
        return np.where((end > len(episode.costs)) & (not episode.terminated), np.nan, total)

    def best_returns(self, obs: Obs, steps: int) -> np.ndarray | None:
        return -self.model.least_cost(self._state(obs), steps).numpy()


def stacked(obs: list[Obs]) -> Obs:
    """Observations of several environments as one, the environment first."""
    named = [one for one in obs if isinstance(one, dict)]
    if named:
        return {key: np.stack([one[key] for one in named]) for key in named[0]}
    return np.stack([np.asarray(one) for one in obs])


def play(player: Player, make: Callable[[], gym.Env], episodes: int, seed: int) -> list[Episode]:
    """Whole episodes, side by side, the k-th of them begun by ``seed + k``."""
    with side_by_side(make, episodes) as made:
        return _play(player, [SeededEpisodes(env, seed + k) for k, env in enumerate(made)])


def _play(player: Player, envs: list[SeededEpisodes]) -> list[Episode]:
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
            if truncated and not ended[k]:
                beyond[k] = float(player.beyond(stacked([obs[k]]), tuple(field[row : row + 1] for field in state))[0])
            elif not ended[k]:
                going.append(row)
        if len(going) < len(running):
            running = [running[row] for row in going]
            state = tuple(field[going] for field in state)
    played = zip(costs, predicted, ended, beyond, strict=True)
    return [Episode(np.array(c), np.array(p), end, ahead) for c, p, end, ahead in played]


def gap(player: Player, episodes: list[Episode]) -> float:
    """Mean predicted less realised cost of plans: below zero, they promise more than they keep."""
    differences = np.concatenate([episode.predicted - player.realised(episode) for episode in episodes])
    return float(np.nanmean(differences)) if np.isfinite(differences).any() else float("nan")
