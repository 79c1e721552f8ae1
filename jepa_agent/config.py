"""Settings, one frozen dataclass per owner. Their documentation is the command line's help; ranges are checked here."""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

OF_OTHERS = {
    "ent_coef": "the actor's temperature is learned by itself, and choices explore by votes of the ensemble",
    "target_entropy": "it is minus the number of action coordinates, as SAC's own",
    "target_update_interval": "targets follow at every update, by tau and encoder_tau",
    "use_sde": "the actor's distribution depends on the latent; there is no state-dependent noise beside it",
    "sde_sample_freq": "there is no state-dependent noise",
    "use_sde_at_warmup": "exploration says what acts before learning starts",
    "policy_delay": "actor and critics are updated together",
    "target_policy_noise": "targets are of actions that the actor draws",
    "target_noise_clip": "targets are of actions that the actor draws",
    "exploration_fraction": "the actor explores by its own draws at all times",
    "exploration_initial_eps": "the actor explores by its own draws at all times",
    "exploration_final_eps": "the actor explores by its own draws at all times",
    "exploration_std": "since 0.2.0 the actor explores by draws of its own",
    "target_noise": "since 0.2.0 targets are of actions that the actor draws",
}
"""Arguments of SB3's SAC, TD3 and DQN, and of earlier versions, that `JEPA` does not have, and why."""

Number = TypeVar("Number", int, float)
Constructor = TypeVar("Constructor", bound=Callable[..., None])
Settings = TypeVar("Settings")
MANY = 1e12
MOST_SECONDS = 100_000  # of a step; ten times that is still within what a pipe can be polled for
_NEAR, _AS_NEAR = 0.6, 0.15  # least likeness of a name that is suggested; how much less than the best's it may be
_FEW = 16  # names that fit into a message


def near_names(given: str, known: Iterable[str], most: int = 2) -> list[str]:
    """Names that may have been meant, the nearest first.

    Case and the marks between words do not count, the beginning or the end of a name stands for all of it, and of a dotted
    name (``planner.horizon``) or one with a namespace (``JEPA/ActionMatters-v0``) the last part is enough.

    Args:
        given: What was given.
        known: What there is; of names that are equally near, the earlier comes first.
        most: How many names to return.
    """

    def plain(name: str) -> str:
        return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")

    def likeness(name: str) -> float:
        found = 0.0
        for candidate in {plain(name), plain(re.split(r"[./]", name)[-1])}:
            if candidate.startswith(word) or candidate.endswith(word):
                found = max(found, 0.9 + 0.1 * len(word) / len(candidate))
            else:
                found = max(found, difflib.SequenceMatcher(None, word, candidate).ratio())
        return found

    word = plain(given)
    if not word:
        return []
    ranked = sorted(((likeness(name), name) for name in known), key=lambda pair: -pair[0])
    least = max(_NEAR, ranked[0][0] - _AS_NEAR) if ranked else 1.0
    return [name for found, name in ranked[:most] if found >= least]


def did_you_mean(given: Any, known: Iterable[str]) -> str:
    """The way out of a name that does not exist, for the end of an error message.

    Args:
        given: What was given.
        known: The names there are.

    Returns:
        ``"; did you mean X or Y?"``; without a near name ``"; choose one of X, Y, Z"``, or nothing if these are too many.
    """
    names = list(known)
    near = near_names(str(given), names)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; choose one of {', '.join(names)}" if len(names) <= _FEW else ""


def unknown_argument(name: str, known: Iterable[str]) -> str:
    """Why an argument does not exist here, for one of SB3's agents or of earlier versions, or else `did_you_mean`."""
    return f": {OF_OTHERS[name]}" if name in OF_OTHERS else did_you_mean(name, known)


def with_named_arguments(constructor: Constructor) -> Constructor:
    """Let a constructor refuse an argument that it does not have with the reason or near names.

    Raises:
        TypeError: Of the constructor, when it is called.
    """
    known = list(inspect.signature(constructor).parameters)[1:]

    @functools.wraps(constructor)
    def checked(self: Any, *args: Any, **given: Any) -> None:
        for name in given:
            if name not in known:
                owner = constructor.__qualname__.split(".")[0]
                raise TypeError(f"{owner} has no argument {name!r}{unknown_argument(name, known)}")
        constructor(self, *args, **given)

    return checked  # type: ignore[return-value]


def _with_named_settings(cls: type[Settings]) -> type[Settings]:
    """`with_named_arguments` for a dataclass, whose constructor is not written out."""
    cls.__init__ = with_named_arguments(cls.__init__)  # type: ignore[method-assign,misc]
    return cls


def as_kwargs(config: Any) -> dict[str, Any]:
    """A config's settings as keyword arguments for the owner's constructor."""
    return {known.name: getattr(config, known.name) for known in fields(config)}


def _number(default: Number, low: float, high: float) -> Number:
    """A field with its default and its range, ends included, which `_check` enforces."""
    return field(default=default, metadata={"range": (low, high)})


def _check(config: Any) -> None:
    """`ValueError` that names a number out of its range."""
    for known in fields(config):
        if "range" not in known.metadata:
            continue
        (low, high), value = known.metadata["range"], getattr(config, known.name)
        if isinstance(value, str):
            raise ValueError(f"{known.name} must be a number between {low:g} and {high:g}, got {value!r}")
        if not low <= value <= high:
            raise ValueError(f"{known.name} must lie between {low:g} and {high:g}, got {value!r}")


@_with_named_settings
@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the networks.

    Args:
        latent_dim: Size D of the latent.
        net_arch: Hidden widths of the encoder, the predictor and the costs-to-go.
        head_arch: Hidden widths of the actor and of immediate cost and termination; a latent makes their work easy.
        ensemble_size: Number of cost-to-go networks.
        memory_size: Steps that the memory network looks back, where there is one.
        encoder: Network from vector observations to latents: mlp.
    """

    latent_dim: int = _number(64, 2, 65536)
    net_arch: tuple[int, ...] = (128, 128)
    head_arch: tuple[int, ...] = (128,)
    ensemble_size: int = _number(4, 1, 1024)
    memory_size: int = _number(8, 1, 1024)
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
        _check(self)


@_with_named_settings
@dataclass(frozen=True)
class PlannerConfig:
    """Mode-2's search. A setting that the chosen planner does not know is refused.

    Args:
        kind: mppi, cem, icem, gradient, hybrid or random for Box actions; exhaustive, cem or random for choices; auto is
            mppi for Box actions, for choices exhaustive, or cem if one step has over max_sequences.
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
    horizon: int = _number(3, 1, 1000)
    num_samples: int = _number(40, 1, 1e6)
    num_elites: int = _number(16, 1, 1e6)
    num_iterations: int = _number(0, 0, 1000)
    temperature: float = _number(0.5, 1e-6, 1e6)
    init_std: float = _number(0.5, 1e-3, 10)
    noise_beta: float = _number(1.0, 0, 10)
    num_starts: int = _number(4, 1, 1e6)
    step_size: float = _number(0.1, 1e-6, 10)
    descent: Literal["adam", "plain"] = "adam"
    max_sequences: int = _number(512, 1, 1e7)
    actor_samples: int = _number(0, 0, 1e6)
    replan_every: int = 1
    budget_ms: float = _number(0.0, 0, MANY)

    def __post_init__(self) -> None:
        _check(self)
        if not 1 <= self.replan_every <= self.horizon:
            raise ValueError(f"replan_every must lie between 1 and {self.horizon}, got {self.replan_every!r}")


@_with_named_settings
@dataclass(frozen=True)
class AgentConfig:
    """How the agent learns.

    Args:
        learning_rate: AdamW's step for all networks, by which it also shrinks all weights, with a weight_decay of 0.01.
            Other optimizers and settings of theirs go into policy_kwargs (optimizer_class, optimizer_kwargs).
        buffer_size: Transitions kept.
        learning_starts: Random steps before learning; their updates are then made at once.
        batch_size: Windows per update.
        tau: Step of the target critic and actor towards the online ones.
        encoder_tau: Step of the target encoder, whose latents are predicted; a fast one lets latents contract.
        gamma: Discount.
        train_freq: Environment steps between rounds of updates.
        gradient_steps: Updates per round; -1 means as many as steps were collected.
        n_steps: Real steps summed before the cost-to-go bootstraps.
        train_horizon: Imagined steps the world model is trained on.
        memory: Network that folds the last memory_size steps into what is seen, for environments that show a part of their
            state only: none, gru or attention.
        exploration: What acts before learning starts: random actions that drift through a Box (drift), or uniform ones
            (uniform).
        actor_horizon: Imagined steps along which the actor is improved; 0 is the cost-to-go alone.
        pessimism: Ensemble standard deviations added to the targets of the cost-to-go.
        plan_pessimism: Ensemble standard deviations by which a plan must beat the actor's own sequence.
        prediction_coef: Weight of latent prediction.
        cost_coef: Weight of immediate cost.
        termination_coef: Weight of termination.
        infonce_coef: Weight of telling latents apart, for Box actions, whose actor follows slopes that vanish where latents
            contract; choices are taught by comparison, and it is not used for them.
        energy_coef: Weight of the contrastive energy, in learning and in the cost of plans; 0 builds none.
        distillation_coef: Weight of imitating what the planner found.
        regularisation_coef: Weight that keeps the actor from saturating.
        capture: Whether the gradients of an update are recorded once as a CUDA graph and replayed; of no effect on a CPU.
    """

    learning_rate: float = _number(1e-3, 0, 1)
    buffer_size: int = _number(1_000_000, 1, MANY)
    learning_starts: int = _number(300, 0, MANY)
    batch_size: int = _number(192, 1, MANY)
    tau: float = _number(0.1, 0, 1)
    encoder_tau: float = _number(0.01, 0, 1)
    gamma: float = _number(0.99, 0, 1)
    train_freq: int = _number(1, 1, MANY)
    gradient_steps: int = _number(-1, -1, MANY)
    n_steps: int = _number(3, 1, 1000)
    train_horizon: int = _number(3, 2, 1000)
    memory: str = "none"
    exploration: str = "drift"
    actor_horizon: int = _number(2, 0, 100)
    pessimism: float = _number(0.5, 0, 100)
    plan_pessimism: float = _number(1.0, 0, 100)
    prediction_coef: float = _number(1.0, 0, MANY)
    cost_coef: float = _number(1.0, 0, MANY)
    termination_coef: float = _number(1.0, 0, MANY)
    infonce_coef: float = _number(0.1, 0, MANY)
    energy_coef: float = _number(0.0, 0, MANY)
    distillation_coef: float = _number(1.0, 0, MANY)
    regularisation_coef: float = _number(1e-3, 0, MANY)
    capture: bool = False

    def __post_init__(self) -> None:
        _check(self)
