import socket
import sys

import numpy as np
import pytest

from jepa_agent.costs import FeatureCost, SentenceGoal
from jepa_agent.extras import MissingExtraError
from jepa_agent.objectives import words

PHRASINGS = {
    "lean left": 0.3,
    "hold the pole to the left": 0.3,
    "tilt a bit to the left": 0.3,
    "stay left of upright": 0.3,
    "lean right": -0.3,
    "hold the pole to the right": -0.3,
    "tilt a bit to the right": -0.3,
    "stay right of upright": -0.3,
    "stand upright": 0.0,
    "hold the pole straight up": 0.0,
    "keep the rod vertical": 0.0,
    "do not lean at all": 0.0,
}


def at(angle):
    return FeatureCost(lambda obs: (obs[..., 1] - np.sin(angle)).square())


def goal(sentence, phrasings=PHRASINGS):
    return SentenceGoal(sentence, phrasings, at)


@pytest.fixture
def no_network(monkeypatch):
    pytest.importorskip("wordllama")

    def refuse(*args, **kwargs):
        raise OSError("there is no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    words._encoder.cache_clear()
    words._embed.cache_clear()


def test_phrasings_that_were_not_given_get_the_number_of_those_they_are_like_without_a_network(no_network):
    for sentence, wanted in (
        ("please keep the stick on the left", 0.3),
        ("could you lean it to the right", -0.3),
        ("make it stand straight up", 0.0),
    ):
        assert goal(sentence).value == pytest.approx(wanted, abs=0.14), sentence


def test_several_numbers_may_be_asked_for(no_network):
    several = {sentence: (number, 1.0) for sentence, number in PHRASINGS.items()}
    assert goal("lean left", several).value == pytest.approx([0.3, 1.0], abs=0.1)


def test_a_sentence_can_be_planned_for(no_network, small):
    model = small("Pendulum-v1", learning_starts=1_000).learn(100)
    with model.using_cost(goal("hold the pole to the left")):
        assert np.isfinite(model.predict(model.get_env().reset(), deterministic=True)[0]).all()


def test_without_the_extra_the_error_names_it(monkeypatch):
    words._encoder.cache_clear()
    words._embed.cache_clear()
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'jepa_agent\[language\]'"):
        goal("lean left").value  # noqa: B018


@pytest.mark.parametrize(
    ("sentence", "phrasings", "message"),
    [
        ("", PHRASINGS, "a sentence must be a text that is not empty, got ''"),
        ("lean", {"lean left": 1.0}, "needs phrasings with different numbers, some thirty, got 1"),
        ("lean", {"lean left": 1.0, "lean right": (1.0, 2.0)}, "one finite number, or all of them equally many"),
        ("lean", {"lean left": 1.0, "lean right": float("nan")}, "one finite number"),
    ],
)
def test_what_cannot_be_read_is_refused(sentence, phrasings, message):
    with pytest.raises(ValueError, match=message):
        goal(sentence, phrasings)
