"""Settings, one frozen dataclass per owner. Their documentation is the command line's help; ranges are checked here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal


def as_kwargs(config: Any) -> dict[str, Any]:
    """A config's settings as keyword arguments for the owner's constructor."""
    return {field.name: getattr(config, field.name) for field in fields(config)}


def _check(owner: Any, **rules: tuple[float, float]) -> None:
    for name, (low, high) in rules.items():
        value = getattr(owner, name)
        if not low <= value <= high:
            raise ValueError(f"{name} must lie between {low:g} and {high:g}, got {value!r}")


MANY = 1e12


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the networks.

    Args:
        latent_dim: Size D of the latent.
        net_arch: Hidden widths of the encoder, the predictor and the costs-to-go.
        head_arch: Hidden widths of the actor and of immediate cost and termination; a latent makes their work easy.
        ensemble_size: Number of cost-to-go networks.
        memory_size: Steps that the memory network looks back, where there is one.
        encoder: Network from vector observations to latents.
    """

    latent_dim: int = 64
    net_arch: tuple[int, ...] = (128, 128)
    head_arch: tuple[int, ...] = (128,)
    ensemble_size: int = 4
    memory_size: int = 8
    encoder: str = "mlp"

    def __post_init__(self) -> None:
        for name in ("net_arch", "head_arch"):
            if isinstance(getattr(self, name), dict):
                raise ValueError(
                    f"{name} must be a list of widths, got {getattr(self, name)!r}: net_arch is of the encoder, the "
                    "predictor and the costs-to-go, head_arch of the actor and of immediate costs"
                )
            widths = tuple(getattr(self, name))
            object.__setattr__(self, name, widths)
            if not widths or min(widths) < 1:
                raise ValueError(f"{name} must name at least one positive width, got {widths!r}")
        _check(self, latent_dim=(2, 65536), ensemble_size=(1, 1024), memory_size=(1, 1024))


@dataclass(frozen=True)
class PlannerConfig:
    """Mode-2's search. A setting that the chosen planner does not know is refused.

    Args:
        kind: Which planner; auto is mppi for Box actions, for choices exhaustive, or cem if one step has over max_sequences.
        horizon: Imagined steps H; exhaustive shortens it until max_sequences holds.
        num_samples: Sequences drawn per iteration (mppi, cem, icem, random), or before gradients refine the best (hybrid).
        num_elites: Best sequences kept per iteration (mppi, cem, icem).
        num_iterations: Refinements: refits of the distribution (mppi, cem, icem), gradient steps (gradient, hybrid) or
            further draws (random); 0 is the planner's own default.
        temperature: Softness of the weighting by cost, in units of the costs' spread (mppi, exhaustive).
        init_std: Spread of the first draw around the actor's sequence, actions lying in [-1, 1]; for choices, the chance of
            any other (cem).
        noise_beta: How slowly the noise changes over time: 0 is white, 2 holds an action for long (icem).
        num_starts: Sequences optimised side by side (gradient, hybrid).
        step_size: Step on the actions (gradient, hybrid).
        descent: Adam, or plain steps along the gradient (gradient, hybrid).
        max_sequences: Most sequences to enumerate (exhaustive).
        actor_samples: Sequences of an actor disturbed a little or a lot that compete beside those drawn (all but
            exhaustive; descent begins at each).
        replan_every: Actions of a plan executed before the next search, at most horizon.
        budget_ms: Milliseconds after which no further iteration begins and the best so far is returned; 0 is no budget.
    """

    kind: str = "auto"
    horizon: int = 3
    num_samples: int = 40
    num_elites: int = 16
    num_iterations: int = 0
    temperature: float = 0.5
    init_std: float = 0.5
    noise_beta: float = 1.0
    num_starts: int = 4
    step_size: float = 0.1
    descent: Literal["adam", "plain"] = "adam"
    max_sequences: int = 512
    actor_samples: int = 0
    replan_every: int = 1
    budget_ms: float = 0.0

    def __post_init__(self) -> None:
        _check(
            self,
            horizon=(1, 1000),
            num_samples=(1, 1e6),
            num_elites=(1, 1e6),
            num_iterations=(0, 1000),
            temperature=(1e-6, 1e6),
            init_std=(1e-3, 10),
            num_starts=(1, 1e6),
            step_size=(1e-6, 10),
            max_sequences=(1, 1e7),
            noise_beta=(0, 10),
            actor_samples=(0, 1e6),
            replan_every=(1, self.horizon),
            budget_ms=(0, MANY),
        )


@dataclass(frozen=True)
class AgentConfig:
    """How the agent learns.

    Args:
        learning_rate: AdamW's step for all networks, by which it also shrinks all weights, with a weight_decay of 0.01.
            Other optimizers and settings of theirs go into policy_kwargs (optimizer_class, optimizer_kwargs).
        buffer_size: Transitions kept.
        learning_starts: Random steps before learning.
        batch_size: Windows per update.
        tau: Step of the target networks towards the online ones.
        gamma: Discount.
        train_freq: Environment steps between rounds of updates.
        gradient_steps: Updates per round; -1 means as many as steps were collected.
        n_steps: Real steps summed before the cost-to-go bootstraps.
        train_horizon: Imagined steps the world model is trained on.
        memory: Network that folds the last memory_size steps into what is seen, for environments that show a part of their
            state only.
        exploration: What acts before learning starts: random actions that drift through a Box, or uniform ones.
        exploration_std: Spread of the noise on collected actions in [-1, 1]; for choices, the chance that each is random.
        target_noise: Spread of the noise that smooths the cost-to-go of Box actions.
        pessimism: Ensemble standard deviations added to the targets of the cost-to-go.
        plan_pessimism: Ensemble standard deviations by which a plan must beat the actor's own sequence.
        prediction_coef: Weight of latent prediction.
        cost_coef: Weight of immediate cost.
        termination_coef: Weight of termination.
        energy_coef: Weight of the contrastive energy, in learning and in the cost of plans; 0 builds none.
        distillation_coef: Weight of imitating what the planner found.
        regularisation_coef: Weight that keeps the actor from saturating.
    """

    learning_rate: float = 1e-3
    buffer_size: int = 1_000_000
    learning_starts: int = 300
    batch_size: int = 192
    tau: float = 0.1
    gamma: float = 0.99
    train_freq: int = 1
    gradient_steps: int = 1
    n_steps: int = 3
    train_horizon: int = 3
    memory: str = "none"
    exploration: str = "drift"
    exploration_std: float = 0.2
    target_noise: float = 0.2
    pessimism: float = 0.5
    plan_pessimism: float = 1.0
    prediction_coef: float = 1.0
    cost_coef: float = 1.0
    termination_coef: float = 1.0
    energy_coef: float = 0.0
    distillation_coef: float = 1.0
    regularisation_coef: float = 1e-3

    def __post_init__(self) -> None:
        _check(
            self,
            learning_rate=(0, 1),
            buffer_size=(1, MANY),
            learning_starts=(0, MANY),
            batch_size=(1, MANY),
            tau=(0, 1),
            gamma=(0, 1),
            train_freq=(1, MANY),
            gradient_steps=(-1, MANY),
            n_steps=(1, 1000),
            train_horizon=(2, 1000),
            exploration_std=(0, 1),
            target_noise=(0, 1),
            pessimism=(0, 100),
            plan_pessimism=(0, 100),
            prediction_coef=(0, MANY),
            cost_coef=(0, MANY),
            termination_coef=(0, MANY),
            energy_coef=(0, MANY),
            distillation_coef=(0, MANY),
            regularisation_coef=(0, MANY),
        )
