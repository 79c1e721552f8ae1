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
from torch import Tensor, nn

from jepa_agent.model.actor import Actor
from jepa_agent.model.cost import CostModule
from jepa_agent.model.encoders import Encoder, on_sphere
from jepa_agent.model.features import FeatureEncoder
from jepa_agent.model.memory import MemoryNetwork
from jepa_agent.model.predictor import Predictor
from jepa_agent.tensor_ops import discount_weights, span
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

    # ------------------------------------------------------------------ the six verbs

    def encode(self, obs: ArrayLike | Mapping[str, ArrayLike], past: Past | None = None) -> Tensor:
        """Latent of raw observations: ``(..., *obs_shape)``, by name for a Dict space, to ``(..., D)``; without a past, as
        at an episode's start. Images may have their channels last, as `JEPA.predict` takes them; under VecNormalize,
        observations are those that it has normalised."""
        seen = self.encoder(self.observation(self._raw(obs)))
        return seen if past is None else self.recollect(seen, past)

    def predict(self, z: ArrayLike, action: ArrayLike) -> Tensor:
        """Latent after one action: ``(..., D)``, ``(..., A)`` to ``(..., D)``."""
        return self.predictor(self._tensor(z), self._tensor(action))

    def cost(self, z: ArrayLike, action: ArrayLike) -> StepCost:
        """Immediate cost of an action in a latent and the probability that it ends the episode, both ``(...)``."""
        cost, logit = self.cost_module.step(self._tensor(z), self._tensor(action))
        return StepCost(cost * self.cost_module.cost_scale, logit.sigmoid())

    def cost_to_go(self, z: ArrayLike, action: ArrayLike | None = None) -> Tensor:
        """Discounted future cost by each ensemble member, ``(B, D)`` to ``(E, B)``; without ``action``, the actor's."""
        z = self._tensor(z)
        action = self.actor(z) if action is None else self._tensor(action)
        return self.cost_module.cost_to_go(z, action) * self.value_scale

    def imagine(self, z: ArrayLike, actions: ArrayLike) -> Tensor:
        """Latents along a sequence of actions: ``(..., D)``, ``(..., H, A)`` to ``(..., H+1, D)``, the first being ``z``."""
        latents, actions = [self._tensor(z)], self._tensor(actions)
        for t in range(actions.shape[-2]):
            latents.append(self.predictor(latents[-1], actions[..., t, :]))
        return torch.stack(latents, dim=-2)

    def trajectory_cost(self, z: ArrayLike, actions: ArrayLike) -> Tensor:
        """Expected discounted cost of candidate sequences: ``(B, D)``, ``(B, N, H, A)`` to ``(B, N)``."""
        return self.member_costs(z, actions).mean(0)

    # ------------------------------------------------------------------ memory

    @property
    def past_size(self) -> int:
        """How many steps back the memory network looks; 0 without one."""
        return 0 if self.memory is None else self.memory.size

    def recollect(self, seen: Tensor, past: Past) -> Tensor:
        """Latents of observations ``(..., D)`` as they appear in the light of the past; as they are without a memory
        network."""
        return seen if self.memory is None else on_sphere(seen + self.memory(seen, past))

    def note(self, seen: Tensor, action: Tensor) -> Tensor:
        """What the memory network is told of a step ``(..., D + A + 1)``: the latent of its observation alone, the action,
        and what that costs in the eyes of the cost module."""
        with torch.no_grad():
            cost, _ = self.cost_module.step(seen, action)
        return torch.cat([seen, action, cost.unsqueeze(-1)], dim=-1)

    def observe(self, batch: SequenceBatch, first: int | Tensor, count: int) -> Tensor:
        """Latents ``(B, count, D)`` of a window's observations from step ``first`` on, the same for all or every row's own
        ``(B,)``, with the past that acting would have had there."""
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
        """Costs ``(E, B, N)`` of imagined latents ``(B, N, H+1, D)`` along actions ``(B, N, H, A)``, by each member.

        The estimate is averaged over depths 0..H: depth k pays k imagined steps, each weighted by the probability of
        being alive, then the learned cost-to-go. Depth 0 is what the actor was trained on, depth H is pure planning;
        the mean of both depends on no single source of error.
        """
        step = self.cost(latents[..., :-1, :], actions)
        weights = discount_weights(step.terminated, self.gamma)  # (B, N, H+1)
        # A step's cost is paid by every depth beyond it: by all H+1 but the first k+1.
        horizon = actions.shape[-2]
        depths = torch.arange(horizon, 0, -1, device=actions.device)
        paid = (weights[..., :-1] * step.cost * depths).sum(-1)
        closing = torch.cat([actions, self.actor(latents[..., -1:, :])], dim=-2)
        ahead = self.cost_to_go(latents.flatten(0, -2), closing.flatten(0, -2)).unflatten(-1, weights.shape)
        total = (paid + (weights * ahead).sum(-1)) / (horizon + 1)
        if self.energy_weight:
            total = total + self.energy_weight * self.cost_module.cost_scale * self.cost_module.energy(latents).mean(-1)
        return total

    def actor_sequence(self, z: Tensor, horizon: int, action: Tensor | None = None) -> Tensor:
        """The actions the actor would take from ``z`` ``(B, D)`` in imagination: ``(B, H, A)``; the first of them is
        ``action`` ``(B, A)``, if that is known."""
        actions = [self.actor(z) if action is None else action]
        while len(actions) < horizon:
            z = self.predictor(z, actions[-1])
            actions.append(self.actor(z))
        return torch.stack(actions, dim=1)

    def disturbed_sequences(self, z: Tensor, horizon: int, count: int, generator: torch.Generator) -> Tensor:
        """As `actor_sequence`, ``count`` times ``(B, N, H, A)``, each disturbed more than the last but most of
        them little: what the actor makes of having been pushed. One draw serves all rows."""
        spreads = (torch.arange(1, count + 1, device=z.device) / count).square().unsqueeze(-1)
        z, actions = z.unsqueeze(1).expand(-1, count, -1), list[Tensor]()
        while len(actions) < horizon:
            actions.append(self.actor.explore(self.actor(z), spreads, generator))
            z = self.predictor(z, actions[-1])
        return torch.stack(actions, dim=2)

    @torch.no_grad()
    def observe_scales(self, obs: ArrayLike | Mapping[str, ArrayLike], reward: ArrayLike, unit: float = 1.0) -> None:
        """Take steps, of every environment one or many ``(B, ...)``, into the running scales of observations and costs;
        ``unit`` is what rewards are divided by when they are sampled."""
        self.encoder.observe(self.observation(self._raw(obs)))
        self.cost_module.observe_cost(self._tensor(reward), unit)

    @property
    def has_observed(self) -> bool:
        """Whether any step has gone into the running scales."""
        return bool(self.cost_module.cost_count > 0)

    @property
    def value_scale(self) -> Tensor:
        """What one unit of the cost-to-go head is worth in units of -reward."""
        return self.cost_module.cost_scale * self.cost_module.effective_horizon

    @property
    def device(self) -> torch.device:
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
