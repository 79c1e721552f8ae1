"""Terms of the representation's loss beside those in use by default: one idea and one source each.

``JEPA(..., representation=[Prediction(), Cost(), Termination(), InfoNCE(0.1), InverseDynamics(0.1)])``
"""

from __future__ import annotations

from collections.abc import Sequence

from jepa_agent.config import did_you_mean
from jepa_agent.learning.representation import (
    Contrast,
    Cost,
    InfoNCE,
    Prediction,
    RepresentationTerm,
    Termination,
    check_terms,
)
from jepa_agent.learning.terms.curiosity import Disagreement
from jepa_agent.learning.terms.energies import Reachability, TransitionContrast
from jepa_agent.learning.terms.masked import MaskedLatents, MaskedSteps, Reconstruction
from jepa_agent.learning.terms.quasimetric import Quasimetric
from jepa_agent.learning.terms.spread import Covariance, SIGReg, Variance
from jepa_agent.learning.terms.time import InverseDynamics, Smoothness

# All that an agent's file may name.
TERMS: tuple[type[RepresentationTerm], ...] = (
    *(Prediction, Cost, Termination, InfoNCE, Contrast),
    *(Variance, Covariance, SIGReg),
    *(InverseDynamics, Smoothness),
    *(MaskedLatents, MaskedSteps, Reconstruction),
    *(TransitionContrast, Reachability, Quasimetric),
    Disagreement,
)


def make_terms(words: Sequence[str]) -> list[RepresentationTerm]:
    """Terms by name, with the weight that follows a colon, or else 1.

    Args:
        words: Such as ``["prediction", "inverse_dynamics:0.1"]``.

    Raises:
        ValueError: A term of no known name, a weight that is no number of at least 0, or a name given twice.
    """
    known, made = {term.name: term for term in TERMS}, []
    for word in words:
        name, colon, weight = word.partition(":")
        if name not in known:
            raise ValueError(f"unknown term {name!r}{did_you_mean(name, known)}")
        try:
            made.append(known[name](float(weight) if colon else 1.0))
        except ValueError:
            raise ValueError(f"term {word!r}: expected a weight after the colon, such as {name}:0.1") from None
    check_terms(made)
    return made


__all__ = [
    "Contrast",
    "Cost",
    "Covariance",
    "Disagreement",
    "InfoNCE",
    "InverseDynamics",
    "MaskedLatents",
    "MaskedSteps",
    "Prediction",
    "Quasimetric",
    "Reachability",
    "Reconstruction",
    "RepresentationTerm",
    "SIGReg",
    "Smoothness",
    "Termination",
    "TransitionContrast",
    "Variance",
    "make_terms",
]
