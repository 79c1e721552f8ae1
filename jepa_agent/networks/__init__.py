"""Modules built from plain numbers."""

from jepa_agent.networks.actor import Actor, BoundedActor, CategoricalActor, FactoredActor
from jepa_agent.networks.blocks import EnsembleLinear, EnsembleMLP, RunningNorm, mlp
from jepa_agent.networks.cost import CostModule, CostToGo, JointCostToGo, PerActionCostToGo
from jepa_agent.networks.encoders import Encoder, VectorObservation, on_sphere, random_latents
from jepa_agent.networks.features import ExtractorFeatures, FeatureEncoder, PartFeatures, is_image
from jepa_agent.networks.gain import GainModel
from jepa_agent.networks.memory import AttentionMemory, GRUMemory, MemoryNetwork, make_memory
from jepa_agent.networks.predictor import Predictor
from jepa_agent.networks.readout import Readout

__all__ = [
    "Actor",
    "AttentionMemory",
    "BoundedActor",
    "CategoricalActor",
    "CostModule",
    "CostToGo",
    "Encoder",
    "EnsembleLinear",
    "EnsembleMLP",
    "ExtractorFeatures",
    "FactoredActor",
    "FeatureEncoder",
    "GRUMemory",
    "GainModel",
    "JointCostToGo",
    "MemoryNetwork",
    "PartFeatures",
    "PerActionCostToGo",
    "Predictor",
    "Readout",
    "RunningNorm",
    "VectorObservation",
    "is_image",
    "make_memory",
    "mlp",
    "on_sphere",
    "random_latents",
]
