"""Parts of one's own, each added from outside and by touching nothing else."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jepa_agent import JEPA, JEPAPolicy, MemoryNetwork, ModeSwitch, Planner, PlannerConfig, make_planner
from jepa_agent.acting.exploration import EXPLORATIONS, RandomActions, register_exploration
from jepa_agent.acting.mode_switch import PLAIN, register_mode
from jepa_agent.cli import main
from jepa_agent.costs import GoalCost
from jepa_agent.experiments.laboratory import planners_for
from jepa_agent.learning.representation import Cost, Prediction, RepresentationTerm, Termination
from jepa_agent.model.blocks import mlp
from jepa_agent.model.cost import JointCostToGo
from jepa_agent.model.encoders import ENCODERS, Encoder, register_encoder
from jepa_agent.model.memory import MEMORIES, register_memory
from jepa_agent.model.predictor import Predictor
from jepa_agent.planning import FOR_BOX, register_planner
from jepa_agent.types import Plan


@dataclass(frozen=True)
class Smoothness(RepresentationTerm):
    """Latents that follow one another are alike."""

    name = "smoothness"

    def loss(self, seen):
        return (seen.z_hat[:, 1:] - seen.z_hat[:, :-1]).square().mean(-1)


class Wrong(Smoothness):
    name = "wrong"

    def loss(self, seen):
        return super().loss(seen).mean()


def test_a_term_of_ones_own_is_learned_and_logged_under_its_name(small, tmp_path):
    terms = [Prediction(), Cost(), Termination(), Smoothness(1000.0)]
    model = small("Pendulum-v1", representation=terms, mode="actor").learn(150)
    told = small("Pendulum-v1", representation=[*terms[:3], Smoothness(1e-9)], mode="actor").learn(150)
    smooth, free = (each.logger.name_to_value["train/smoothness_loss"] for each in (model, told))
    assert 0 < smooth < 0.5 * free
    assert {f"train/{term.name}_loss" for term in terms} <= model.logger.name_to_value.keys()
    model.save(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"representation.*hand it over"):
        JEPA.load(tmp_path / "agent")
    assert JEPA.load(tmp_path / "agent", representation=terms).terms == terms


class Echo(RepresentationTerm):
    """The cost is read from the latent by a network of the term's own."""

    name = "echo"

    def build(self, sizes, observation_space, action_space):
        return mlp(sizes.latent_dim, sizes.head_arch, 1)

    def loss(self, seen):
        found = self.network(seen.model)(seen.z_hat[:, 0])
        return (found - seen.batch.cost[:, :1]).square()


def test_a_term_of_ones_own_may_have_networks_which_are_learned_saved_and_loaded(small, tmp_path):
    terms = [Prediction(), Cost(), Termination(), Echo(0.5)]
    model = small("Pendulum-v1", representation=terms, mode="actor")
    before = [weight.clone() for weight in model.world_model.term_networks["echo"].parameters()]
    model.learn(40)
    learned = list(model.world_model.term_networks["echo"].parameters())
    assert not any(torch.equal(one, other) for one, other in zip(before, learned, strict=True))
    model.save(tmp_path / "agent")
    loaded = JEPA.load(tmp_path / "agent", representation=terms).world_model.term_networks["echo"]
    assert all(torch.equal(one, other) for one, other in zip(loaded.parameters(), learned, strict=True))
    with pytest.warns(UserWarning, match=r"networks of representation terms dropped: echo; the optimizer begins anew"):
        assert not JEPA.load(tmp_path / "agent", representation=terms[:3]).world_model.term_networks


def test_terms_that_cannot_be_learned_from_are_refused(small):
    with pytest.raises(ValueError, match="RepresentationTerm, got 3"):
        small("Pendulum-v1", representation=[Prediction(), 3])
    with pytest.raises(ValueError, match="two terms of one name"):
        small("Pendulum-v1", representation=[Prediction(), Prediction(0.5)])
    with pytest.raises(ValueError, match="weights must be at least 0"):
        small("Pendulum-v1", representation=[Prediction(-1.0)])
    with pytest.raises(ValueError, match=r"Wrong\.loss gave"):
        small("Pendulum-v1", representation=[Prediction(), Wrong()]).learn(40)


class SquaredCritic(JointCostToGo):
    """A critic with a loss of its own."""

    seen = 0

    def loss(self, z, action, target, members_per_row=2):
        type(self).seen += 1
        found = self.members(z, action)
        return F.mse_loss(found, target.expand_as(found), reduction="none").mean(0)


class Forgetful(Predictor):
    """Nothing ever changes."""

    def forward(self, z, action):
        return z + 0.0 * action.sum(-1, keepdim=True)


def test_a_critic_and_a_predictor_of_ones_own_are_learned_and_planned_with(small):
    own = {"critic_class": SquaredCritic, "predictor_class": Forgetful}
    model = small("Pendulum-v1", policy_kwargs={"latent_dim": 8, "net_arch": [16], "head_arch": [16], **own}).learn(40)
    assert SquaredCritic.seen
    assert isinstance(model.world_model_target.cost_module.cost_to_go, SquaredCritic)
    z = torch.randn(3, 8)
    assert torch.equal(model.world_model.imagine(z, torch.ones(3, 2, 1))[:, -1], z)
    model.set_mode("planner")
    assert np.isfinite(model.predict(np.zeros(3, np.float32))[0]).all()


def test_a_policy_may_make_any_part_itself(small):
    class Policy(JEPAPolicy):
        def make_actor(self):
            actor = super().make_actor()
            with torch.no_grad():
                for weight in actor.parameters():
                    weight.zero_()
            return actor

    model = small("Pendulum-v1", policy=Policy, mode="actor")
    assert model.predict(np.ones(3, np.float32), deterministic=True)[0].tolist() == [0.0]


def test_learning_from_stored_experience_alone_is_learning(small, tmp_path):
    source = small("CartPole-v1").learn(200)
    source.save_replay_buffer(tmp_path / "rows.zip")
    model = small("CartPole-v1", learning_starts=10_000)
    with pytest.raises(ValueError, match="replay buffer is empty"):
        model.learn_offline(1)
    model.load_replay_buffer(tmp_path / "rows.zip")
    assert model.world_model.value_scale == source.world_model.value_scale
    model.learn_offline(5)
    first = model.logger.name_to_value["train/prediction_loss"]
    model.logger.name_to_value.clear()
    model.logger.name_to_count.clear()
    model.learn_offline(100)
    assert model._n_updates == 105
    assert model.num_timesteps == 0
    assert model.logger.name_to_value["train/prediction_loss"] < first
    with pytest.raises(ValueError, match="n_updates must be at least 1"):
        model.learn_offline(0)


def test_without_rewards_the_world_model_alone_is_fitted_and_learning_goes_on_from_there(small, tmp_path):
    source = small("CartPole-v1", learning_starts=300).learn(300)
    source.save_replay_buffer(tmp_path / "rows.zip")

    def taught(scale):
        model = small("CartPole-v1", learning_starts=10)
        model.load_replay_buffer(tmp_path / "rows.zip")
        model.replay_buffer.rewards *= scale
        before = {name: weight.clone() for name, weight in model.world_model.named_parameters()}
        return model.learn_offline(60, representation_only=True), before

    model, before = taught(1.0)
    after = dict(model.world_model.named_parameters())
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"encoder", "predictor", "cost_module"}  # the last by the term of termination, which is no reward
    still = [name for name in before if name.startswith(("actor", "cost_module.cost_to_go"))]
    assert still
    assert all(torch.equal(before[name], after[name]) for name in still)
    assert "train/cost_loss" not in model.logger.name_to_value
    assert "train/value_loss" not in model.logger.name_to_value
    # Other rewards, the same world model.
    other, _ = taught(-7.0)
    for name, weight in other.world_model.named_parameters():
        assert torch.equal(weight, after[name]), name
    # A goal is planned for at once; what follows learns from rewards, whose values begin only now, as in a fresh agent.
    with model.using_cost(GoalCost(np.zeros(4, np.float32)), PlannerConfig(horizon=4)):
        assert model.predict(np.full(4, 0.1, np.float32), deterministic=True)[0] in (0, 1)
    assert (model._n_updates, model._n_representation_updates) == (0, 60)
    assert float(model.world_model.cost_module.value_offset) == 0.0
    model.save(tmp_path / "model")
    again = JEPA.load(tmp_path / "model", env="CartPole-v1", device="cpu")
    assert again._n_representation_updates == 60
    model.learn_offline(1)
    assert (model._n_updates, model._n_representation_updates) == (1, 60)
    assert float(model.world_model.cost_module.value_offset) != 0.0


def test_a_representation_of_rewards_alone_cannot_be_learned_without(small):
    model = small("Pendulum-v1", representation=[Cost()], learning_starts=50).learn(50)
    with pytest.raises(ValueError, match=r"every term of the representation reads rewards.*Prediction\(\)"):
        model.learn_offline(1, representation_only=True)


@dataclass(frozen=True)
class Coward(Planner):
    """Does what the actor would."""

    horizon: int = 3
    num_samples: int = 1

    def plan(self, cost_fn, init):
        own = init.sequences[:, :1]
        return Plan(own[:, 0], own[:, 0], torch.zeros_like(own[:, 0]), cost_fn(own)[:, 0])


@dataclass(frozen=True)
class NeverAgain(ModeSwitch):
    """Searches at the first step of an episode only."""

    def wants_plan(self, situation):
        return situation.memory.steps == 0


class Nothing(MemoryNetwork):
    """Remembers nothing."""

    def __init__(self, latent_dim, action_dim, size):
        super().__init__(size)

    def forward(self, seen, past):
        return torch.zeros_like(seen)


class Still(RandomActions):
    """Acts by the smallest action."""

    def __call__(self):
        return np.stack([self.action_space.low] * self.n_envs)


class Twice(Encoder):
    """Sees everything doubled."""

    def forward(self, x):
        return super().forward(2.0 * x)


@pytest.fixture
def registered():
    """Parts of one's own, known by name for the length of a test."""
    register_planner("coward", Coward)
    register_mode("never_again", NeverAgain)
    register_memory("nothing", Nothing)
    register_exploration("still", Still)
    register_encoder("twice", Twice)
    yield
    del FOR_BOX["coward"], PLAIN["never_again"], MEMORIES["nothing"], EXPLORATIONS["still"], ENCODERS["twice"]


@pytest.mark.usefixtures("registered")
def test_parts_of_ones_own_are_asked_for_by_name_everywhere(tmp_path, capsys):
    words = ["--planner.kind", "coward", "--mode", "never_again", "--agent.memory", "nothing"]
    words += ["--agent.exploration", "still", "--model.encoder", "twice"]
    sizes = ["--model.latent_dim", "8", "--model.net_arch", "[16]", "--model.head_arch", "[16]", "--eval-freq", "0"]
    few = ["--agent.learning_starts", "20", "--agent.batch_size", "8", "--agent.buffer_size", "200"]
    train = ["train", "--env", "Pendulum-v1", "-n", "40", *words, *sizes, *few, "--output", str(tmp_path / "run")]
    assert main(train) == 0
    model = JEPA.load(tmp_path / "run" / "last_model.zip")
    assert isinstance(model.policy.planner, Coward)
    assert isinstance(model.policy.mode_switch, NeverAgain)
    assert isinstance(model.world_model.memory, Nothing)
    assert isinstance(model.world_model.encoder, Twice)
    stored = JEPA.resume(tmp_path / "run" / "checkpoints", env="Pendulum-v1").replay_buffer
    assert (stored.actions[:20] == -1.0).all()
    for flag, near, name in (
        ("--planner.kind", "cowrd", "coward"),
        ("--mode", "never_agian", "never_again"),
        ("--agent.memory", "nothng", "nothing"),
        ("--agent.exploration", "stil", "still"),
        ("--model.encoder", "twic", "twice"),
    ):
        assert main(["train", "--env", "Pendulum-v1", flag, near]) == 2
        assert f"did you mean {name}?" in capsys.readouterr().err
    assert "coward" in planners_for(model.action_space)
    with pytest.raises(ValueError, match="did you mean coward"):
        make_planner(PlannerConfig(kind="cowrd"), model.action_space)
    with pytest.raises(ValueError, match="never_again"):
        model.set_mode("never_agian")


@pytest.mark.usefixtures("registered")
def test_a_name_that_is_taken_is_not_given_twice():
    for register, name, part in (
        (register_planner, "cem", Coward),
        (register_mode, "auto", NeverAgain),
        (register_memory, "gru", Nothing),
        (register_exploration, "drift", Still),
        (register_encoder, "mlp", Twice),
    ):
        with pytest.raises(ValueError, match=f"'{name}' is taken"):
            register(name, part)
    register_planner("coward", Coward)
