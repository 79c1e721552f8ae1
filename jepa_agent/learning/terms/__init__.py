"""Terms of the representation's loss beside those in use by default: one idea and one source each.

``JEPA(..., representation=[Prediction(), Cost(), Termination(), InfoNCE(0.1), InverseDynamics(0.1)])``
"""

from jepa_agent.learning.representation import Contrast, Cost, InfoNCE, Prediction, RepresentationTerm, Termination
from jepa_agent.learning.terms.curiosity import Disagreement
from jepa_agent.learning.terms.energies import Reachability, TransitionContrast
from jepa_agent.learning.terms.masked import MaskedLatents, MaskedSteps, Reconstruction
from jepa_agent.learning.terms.spread import Covariance, SIGReg, Variance
from jepa_agent.learning.terms.time import InverseDynamics, Smoothness

# All that an agent's file may name.
TERMS: tuple[type[RepresentationTerm], ...] = (
    *(Prediction, Cost, Termination, InfoNCE, Contrast),
    *(Variance, Covariance, SIGReg),
    *(InverseDynamics, Smoothness),
    *(MaskedLatents, MaskedSteps, Reconstruction),
    *(TransitionContrast, Reachability),
    Disagreement,
)

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
    "Reachability",
    "Reconstruction",
    "RepresentationTerm",
    "SIGReg",
    "Smoothness",
    "Termination",
    "TransitionContrast",
    "Variance",
]
