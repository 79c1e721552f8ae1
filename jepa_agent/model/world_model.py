"""The world model: six verbs on latents. Nothing is ever decoded.

===================  ===========================================================================
encode               z = LN(enc(norm(o)))
predict              z' = LN(z + pred(z, a))
cost                 c, P(end) = step_net(z, a)
cost_to_go           Q_e(z, a), one for each member e of the ensemble
imagine              z_0 = z, z_{k+1} = predict(z_k, a_k)
trajectory_cost      mean over depths h = 0..H of  sum_{k<h} w_k c_k + w_h Q(z_h, a_h),
                     w_k = gamma^k prod_{j<k} (1 - P(end)_j),  a_H = actor(z_H)
===================  ===========================================================================

LN projects onto the sphere of zero mean and unit variance. A constant latent would predict itself perfectly; the head of
`jepa_agent.agent` tells what keeps latents from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from gymnasium import spaces
from torch import Tensor, nn

from jepa_agent.model.actor import Actor
from jepa_agent.model.cost import CostModule
from jepa_agent.model.encoders import Encoder, on_sphere
from jepa_agent.model.features import FeatureEncoder
from jepa_agent.model.memory import MemoryNetwork
from jepa_agent.model.model_env import WorldModelEnv
from jepa_agent.model.predictor import Predictor
from jepa_agent.tensor_ops import discount_weights, mean_over_depths, span
from jepa_agent.types import ArrayLike, Observations, Past, SequenceBatch, StepCost

_CACHED_SEQUENCES = 160


class WorldModel(nn.Module):
    """Six verbs on latents ``z``. Costs are in the units of -reward; any array is accepted where a tensor is.

    Actions are what the networks see: ``[-1, 1]^A`` for Box spaces, one-hot vectors for Discrete ones.

    Args:
        observation: Raw observations to what the encoder takes: vectors, or the identity where the encoder has features.
        encoder: To latents ``(..., D)``.
        predictor: Latent and action to the next latent.
        cost_module: Immediate cost, termination, and the ensemble of costs-to-go.
        actor: Latent to action: Mode-1.
        gamma: Discount per step.
        energy_weight: Weight of the contrastive energy in `trajectory_cost`; 0 leaves it out.
        memory: What folds the last steps into the latent, if anything does.
    """

    def __init__(
        self,
        observation: nn.Module,
        encoder: Encoder | FeatureEncoder,
        predictor: Predictor,
        cost_module: CostModule,
        actor: Actor,
        gamma: float,
        energy_weight: float = 0.0,
        memory: MemoryNetwork | None = None,
    ):
        super().__init__()
        self.observation = observation
        self.encoder = encoder
        self.predictor = predictor
        self.cost_module = cost_module
        self.actor = actor
        self.gamma = gamma
        self.energy_weight = energy_weight
        self.memory = memory
        # Of representation terms that have networks of their own, by the term's name; last, so that the order of all other
        # parameters, by which an optimiser's state is saved, depends on no term.
        self.term_networks = nn.ModuleDict()

    # ------------------------------------------------------------------ the six verbs

    def encode(self, obs: ArrayLike | Mapping[str, ArrayLike], past: Past | None = None) -> Tensor:
        """Latents of raw observations: ``z = LN(enc(norm(o)))``.

        Args:
            obs: ``(..., *obs_shape)``, by name for a Dict space. Images may have their channels last, as `JEPA.predict`
                takes them; under VecNormalize, observations are those that it has normalised.
            past: Notes of the last steps for the memory network; None is an episode's start.

        Returns:
            Latents ``(..., D)`` of zero mean and unit variance.

        Raises:
            ValueError: Observations of another shape than the space's.
        """
        seen = self.encoder(self.observation(self._raw(obs)))
        return seen if past is None else self.recollect(seen, past)

    def predict(self, z: ArrayLike, action: ArrayLike) -> Tensor:
        """The latent after one action: ``z' = LN(z + pred(z, a))``.

        Args:
            z: Latents ``(..., D)``.
            action: In the networks' coordinates, ``(..., A)``.

        Returns:
            Latents ``(..., D)``.
        """
        return self.predictor(self._tensor(z), self._tensor(action))

    def cost(self, z: ArrayLike, action: ArrayLike) -> StepCost:
        """What one step costs and whether it ends the episode.

        Args:
            z: Latents ``(..., D)`` before the step.
            action: In the networks' coordinates, ``(..., A)``.

        Returns:
            Expected cost ``(...)`` in the units of -reward, and probability of termination ``(...)``.
        """
        cost, logit = self.cost_module.step(self._tensor(z), self._tensor(action))
        return StepCost(cost * self.cost_module.cost_scale, logit.sigmoid())

    def cost_to_go(self, z: ArrayLike, action: ArrayLike | None = None) -> Tensor:
        """Discounted future cost of an action and of following the actor afterwards, by each member of the ensemble.

        Args:
            z: Latents ``(B, D)``.
            action: In the networks' coordinates, ``(B, A)``; None is the actor's own.

        Returns:
            Costs ``(E, B)`` in the units of -reward.
        """
        z = self._tensor(z)
        action = self.actor(z) if action is None else self._tensor(action)
        heads = self.cost_module
        return heads.value_offset + heads.cost_to_go(z, action) * self.value_scale

    def imagine(self, z: ArrayLike, actions: ArrayLike) -> Tensor:
        """Latents along a sequence of actions: ``z_{k+1} = predict(z_k, a_k)``.

        Args:
            z: Latents ``(..., D)`` to start from.
            actions: In the networks' coordinates, ``(..., H, A)``.

        Returns:
            Latents ``(..., H+1, D)``, the first being ``z``.
        """
        latents, actions = [self._tensor(z)], self._tensor(actions)
        for t in range(actions.shape[-2]):
            latents.append(self.predictor(latents[-1], actions[..., t, :]))
        return torch.stack(latents, dim=-2)

    def trajectory_cost(self, z: ArrayLike, actions: ArrayLike) -> Tensor:
        """Expected discounted cost of candidate sequences, by the formula at the head of this file, mean over the ensemble.

        Args:
            z: Latents ``(B, D)`` to start from.
            actions: N candidates for each, ``(B, N, H, A)``.

        Returns:
            Costs ``(B, N)`` in the units of -reward.
        """
        return self.member_costs(z, actions).mean(0)

    # ------------------------------------------------------------------ as an environment

    def as_env(
        self, action_space: spaces.Space, observations: ArrayLike | Mapping[str, ArrayLike], max_steps: int = 100
    ) -> WorldModelEnv:
        """A Gymnasium environment in which this model steps, for any agent to be trained in.

        Its observations are latents, its actions those of the real environment, its rewards minus the predicted immediate
        costs; `WorldModelEnv` says how episodes start and end.

        Args:
            action_space: Of the real environment.
            observations: Where episodes start, ``(N, *obs_shape)``, by name for a Dict space, as `encode` takes them: for
                example ``agent.replay_buffer.sample(1_000, agent.get_vec_normalize_env()).observations``. With a memory
                network they are encoded as an episode's first.
            max_steps: Steps after which an episode is truncated.

        Returns:
            The environment, which encodes and predicts by this model as it is at each step.

        Raises:
            ValueError: ``max_steps`` is below 1; observations are none, not finite, or of another shape; the action space
                is not this model's.
        """
        return WorldModelEnv(self, action_space, observations, max_steps)

    # ------------------------------------------------------------------ memory

    @property
    def past_size(self) -> int:
        """How many steps back the memory network looks; 0 without one."""
        return 0 if self.memory is None else self.memory.size

    def recollect(self, seen: Tensor, past: Past) -> Tensor:
        """Latents of observations, corrected by what the memory network makes of the past; unchanged without one.

        Args:
            seen: Latents ``(..., D)`` of the observations alone.
            past: The notes that working memory held there.

        Returns:
            Latents ``(..., D)``.
        """
        return seen if self.memory is None else on_sphere(seen + self.memory(seen, past))

    def note(self, seen: Tensor, action: Tensor) -> Tensor:
        """One step as the memory network will read it.

        Args:
            seen: Latents ``(..., D)`` of the observation alone.
            action: The action executed there, ``(..., A)``.

        Returns:
            Latent, action and predicted cost side by side, ``(..., D + A + 1)``.
        """
        with torch.no_grad():
            cost, _ = self.cost_module.step(seen, action)
        return torch.cat([seen, action, cost.unsqueeze(-1)], dim=-1)

    def observe(self, batch: SequenceBatch, first: int | Tensor, count: int) -> Tensor:
        """Latents of a window's observations, with the past that acting would have had there.

        Args:
            batch: Windows; with a memory network they hold the steps before them, too.
            first: Step of the window to begin at, the same for all rows or each row's own ``(B,)``.
            count: Number of steps.

        Returns:
            Latents ``(B, count, D)``.
        """
        if self.memory is None:
            return self.encode(span(batch.obs, first, count))
        assert batch.past is not None
        size = self.memory.size
        before, now = batch.past, batch.obs[:, : first + count] if isinstance(first, int) else batch.obs[:, :]
        # The past ends where the window begins, so that step `first` lies at its end in a line that begins at `first`.
        seen = span(torch.cat([self.encode(before.obs), self.encode(now)], dim=1), first, size + count)
        action, mask = (
            span(torch.cat(parts, dim=1), first, size + count - 1)
            for parts in ((before.action, batch.action), (before.mask, batch.mask))
        )
        # Every step's K notes before it, the newest first, as working memory holds them.
        notes = self.note(seen[:, :-1], action).unfold(1, size, 1).transpose(-1, -2)
        past = Past(notes.flip(-2), mask.unfold(1, size, 1).flip(-1))
        return self.recollect(seen[:, size:], past)

    # ------------------------------------------------------------------ what the verbs are made of

    def member_costs(self, z: ArrayLike, actions: ArrayLike) -> Tensor:
        """`trajectory_cost` as each ensemble member sees it: ``(E, B, N)``."""
        z, actions = self._tensor(z), self._tensor(actions)
        start = z.unsqueeze(1).expand(*actions.shape[:2], z.shape[-1])
        # On a CPU a few rows at a time, so that what is imagined stays in the cache.
        rows = max(_CACHED_SEQUENCES // actions.shape[1], 1)
        if z.device.type != "cpu" or len(z) <= rows:
            return self.sequence_costs(self.imagine(start, actions), actions)
        blocks = zip(start.split(rows), actions.split(rows), strict=True)
        return torch.cat([self.sequence_costs(self.imagine(s, a), a) for s, a in blocks], dim=1)

    def sequence_costs(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Costs of imagined sequences as each member of the ensemble sees them.

        The estimate is averaged over depths 0..H: depth k pays k imagined steps, each weighted by the probability of being
        alive, then the learned cost-to-go. Depth 0 is what the actor was trained on, depth H is pure planning; the mean of
        both depends on no single source of error.

        Args:
            latents: Imagined, ``(B, N, H+1, D)``.
            actions: Those that led there, ``(B, N, H, A)``.

        Returns:
            Costs ``(E, B, N)`` in the units of -reward.
        """
        step = self.cost(latents[..., :-1, :], actions)
        weights = discount_weights(step.terminated, self.gamma)  # (B, N, H+1)
        closing = torch.cat([actions, self.actor(latents[..., -1:, :])], dim=-2)
        ahead = self.cost_to_go(latents.flatten(0, -2), closing.flatten(0, -2)).unflatten(-1, weights.shape)
        total = mean_over_depths(step.cost, weights, ahead)
        if self.energy_weight:
            total = total + self.energy_weight * self.cost_module.cost_scale * self.cost_module.energy(latents).mean(-1)
        return total

    def actor_sequence(self, z: Tensor, horizon: int, action: Tensor | None = None) -> Tensor:
        """The actions that the actor would take in imagination.

        Args:
            z: Latents ``(B, D)`` to start from.
            horizon: Number H of actions.
            action: The first of them ``(B, A)``, where it has been computed already.

        Returns:
            Sequences ``(B, H, A)``.
        """
        actions = [self.actor(z) if action is None else action]
        while len(actions) < horizon:
            z = self.predictor(z, actions[-1])
            actions.append(self.actor(z))
        return torch.stack(actions, dim=1)

    def disturbed_sequences(self, z: Tensor, horizon: int, count: int, generator: torch.Generator) -> Tensor:
        """As `actor_sequence`, several times with exploration noise: how the actor recovers from having been pushed.

        Args:
            z: Latents ``(B, D)`` to start from.
            horizon: Number H of actions.
            count: Number N of sequences. The spread of the noise grows from one to the next, quadratically.
            generator: Of the noise; one draw serves all rows.

        Returns:
            Sequences ``(B, N, H, A)``.
        """
        spreads = (torch.arange(1, count + 1, device=z.device) / count).square().unsqueeze(-1)
        z, actions = z.unsqueeze(1).expand(-1, count, -1), list[Tensor]()
        while len(actions) < horizon:
            actions.append(self.actor.explore(self.actor(z), spreads, generator))
            z = self.predictor(z, actions[-1])
        return torch.stack(actions, dim=2)

    @torch.no_grad()
    def observe_scales(self, obs: ArrayLike | Mapping[str, ArrayLike], reward: ArrayLike, unit: float = 1.0) -> None:
        """Update the running scales of observations and costs.

        Args:
            obs: Observations ``(B, *obs_shape)``, of every environment one or many.
            reward: Rewards ``(B,)`` as the environment gives them.
            unit: What rewards are divided by when they are sampled, as `VecNormalize` does.
        """
        self.encoder.observe(self.observation(self._raw(obs)))
        self.cost_module.observe_cost(-self._tensor(reward), unit)

    def perception_and_heads(self) -> tuple[list[Tensor], list[Tensor]]:
        """Parameters of what makes latents of observations, and of everything else."""
        names = ("observation.", "encoder.", "memory.")
        perception: list[Tensor] = [weight for name, weight in self.named_parameters() if name.startswith(names)]
        heads: list[Tensor] = [weight for name, weight in self.named_parameters() if not name.startswith(names)]
        return perception, heads

    @property
    def has_observed(self) -> bool:
        """Whether any step has gone into the running scales."""
        return bool(self.cost_module.cost_count > 0)

    @property
    def action_dim(self) -> int:
        """Size A of an action as the networks see it."""
        return self.cost_module.cost_to_go.action_dim

    @property
    def value_scale(self) -> Tensor:
        """What one unit of the cost-to-go head is worth in units of -reward."""
        return self.cost_module.cost_scale * self.cost_module.effective_horizon

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.cost_module.cost_scale.device

    def _raw(self, obs: ArrayLike | Mapping[str, ArrayLike]) -> Observations:
        """Observations as tensors of the types they have."""
        if isinstance(obs, Tensor):
            return obs
        if isinstance(obs, Mapping):
            return {key: torch.as_tensor(value, device=self.device) for key, value in obs.items()}
        return cast(Tensor, torch.as_tensor(obs, device=self.device))

    def _tensor(self, value: ArrayLike) -> Tensor:
        if isinstance(value, Tensor):
            return value
        return cast(Tensor, torch.as_tensor(value, device=self.device, dtype=torch.float32))
