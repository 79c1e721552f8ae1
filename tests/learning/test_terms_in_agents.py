"""Optional terms within agents: learned, saved, resumed to the bit, and absent where they are not asked for."""

import warnings

import numpy as np
import pytest
import torch

from jepa_agent import JEPA
from jepa_agent.learning.representation import Contrast, imagine_along, representation_losses
from jepa_agent.learning.terms import TERMS, Cost, InverseDynamics, Prediction, Reachability, Termination, TransitionContrast

USUAL = [Prediction(), Cost(), Termination()]
OPTIONAL = [term(0.1) for term in TERMS if not issubclass(term, (Prediction, Cost, Termination))]
WITH_NETWORKS = {
    "inverse_dynamics",
    "masked_latents",
    "masked_steps",
    "reconstruction",
    "transition_energy",
    "reachability",
    "quasimetric",
    "disagreement",
}


def flat(model):
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach()


@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
def test_all_terms_are_learned_logged_saved_and_resumed_to_the_bit(env, small, tmp_path):
    model = small(env, representation=[*USUAL, *OPTIONAL], mode="actor", batch_size=16)
    networks = model.world_model.term_networks
    assert set(networks) == WITH_NETWORKS
    begun = {name: torch.nn.utils.parameters_to_vector(network.parameters()).clone() for name, network in networks.items()}
    model.learn(50)
    for name, network in networks.items():
        assert not torch.equal(torch.nn.utils.parameters_to_vector(network.parameters()), begun[name]), name
    logged = model.logger.name_to_value
    assert all(np.isfinite(logged[f"train/{term.name}_loss"]) for term in model.terms)
    model.save_checkpoint(tmp_path / "run")
    model.learn(20, reset_num_timesteps=False)
    again = JEPA.resume(tmp_path / "run", env)
    assert again.terms == model.terms
    again.learn(20, reset_num_timesteps=False)
    assert torch.equal(flat(again), flat(model))


def test_networks_are_there_only_with_their_term_and_change_no_other_weight(small, tmp_path):
    plain, with_term = small("Pendulum-v1"), small("Pendulum-v1", representation=[*USUAL, InverseDynamics(0.1)])
    without = small("Pendulum-v1", representation=[*USUAL, InverseDynamics(0.0)])
    names = [name for name in with_term.policy.state_dict() if "term_networks" in name]
    assert names
    for model in (plain, without):
        assert not any("term_networks" in name for name in model.policy.state_dict())
        assert all(
            torch.equal(value, with_term.policy.state_dict()[name]) for name, value in model.policy.state_dict().items()
        )
    with_term.save(tmp_path / "agent")
    assert JEPA.load(tmp_path / "agent").terms == with_term.terms


def test_an_agent_is_loaded_with_other_terms_whose_networks_are_new_and_learns_on(small, tmp_path):
    saved = [*USUAL, InverseDynamics(0.1), Reachability(0.1)]
    model = small("Pendulum-v1", representation=saved, mode="actor").learn(30)
    model.save(tmp_path / "agent")
    asked = [*USUAL, Contrast(0.1), Reachability(0.1), TransitionContrast(0.1)]
    told = "dropped: inverse_dynamics; new: energy, transition_energy; the optimizer begins anew"
    with pytest.warns(UserWarning, match=told):
        other = JEPA.load(tmp_path / "agent", env="Pendulum-v1", representation=asked)
    assert other.terms == asked
    assert set(other.world_model.term_networks) == {"reachability", "transition_energy"}
    mine, theirs = (dict(one.policy.state_dict()) for one in (other, model))
    shared = mine.keys() & theirs.keys()
    assert any("reachability" in name for name in shared)
    assert all(torch.equal(mine[name], theirs[name]) for name in shared)
    assert not other.policy.optimizer.state
    before = flat(other)
    other.learn(30)
    assert not torch.equal(flat(other), before)
    other.save(tmp_path / "again")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the same terms, with other weights: nothing is dropped, nothing new
        again = JEPA.load(tmp_path / "again", representation=[type(term)(0.5) for term in asked])
    assert torch.equal(flat(again), flat(other))
    assert again.policy.optimizer.state


CONTRAST, TRANSITIONS, REACHABLE = Contrast(1.0, shape_encoder=True), TransitionContrast(1.0), Reachability(1.0)


@pytest.fixture(scope="module")
def energies():
    """An agent after 300 updates with all energies, and windows of what it met at random."""
    sizes = {"latent_dim": 16, "net_arch": [32], "ensemble_size": 2}
    settings = {
        "seed": 0,
        "device": "cpu",
        "batch_size": 32,
        "learning_starts": 200,
        "mode": "actor",
        "policy_kwargs": sizes,
    }
    terms = [*USUAL, CONTRAST, TRANSITIONS, REACHABLE]
    model = JEPA("MlpPolicy", "Pendulum-v1", representation=terms, **settings).learn(201).learn_offline(100)
    assert model._n_updates >= 300
    return model, model.replay_buffer.sample_sequences(256, 6)


@pytest.mark.parametrize("term", [CONTRAST, TRANSITIONS])
def test_after_hundreds_of_updates_energies_still_have_a_gradient_also_for_the_encoder(term, energies):
    model, batch = energies
    world = model.world_model
    model.policy.optimizer.zero_grad()
    total, _ = representation_losses([term], imagine_along(world, model.world_model_target, batch, 3))
    total.backward()
    own = world.cost_module.energy_net if term is CONTRAST else term.network(world)
    of_encoder, of_energy = (
        float(sum(weight.grad.square().sum() for weight in part.parameters()).sqrt()) for part in (world.encoder, own)
    )
    assert of_encoder > 1e-3
    assert of_energy > 1e-2


def test_an_energy_learns_to_tell_transitions_that_were_from_those_that_were_not(energies):
    model, batch = energies
    world = model.world_model
    with torch.no_grad():
        z, z_next = world.encode(batch.obs[:, 0]), world.encode(batch.obs[:, 1])
        was, was_not = (
            TRANSITIONS.energy(world, z, batch.action[:, 0], after) for after in (z_next, z_next.roll(1, dims=0))
        )
    assert (was < was_not).float().mean() > 0.85


def test_reachability_grows_with_the_budget_and_falls_with_distance(energies):
    model, batch = energies
    world = model.world_model
    with torch.no_grad():
        z = world.observe(batch, 0, 7)
        near, far = ([float(REACHABLE.logit(world, z[:, 0], z[:, d], k).sigmoid().mean()) for k in (1, 5)] for d in (1, 5))
        other = float(REACHABLE.logit(world, z[:, 0], z[:, 1].roll(1, dims=0), 5).sigmoid().mean())
    assert near[0] > far[0] + 0.1  # a step away and five steps away, with a budget of one
    assert far[1] > far[0] + 0.1  # with a budget of five, and of one
    assert other < near[1] - 0.3
