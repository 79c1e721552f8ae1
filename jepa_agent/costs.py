"""Costs that a trained agent can be asked to plan for: the public names of `jepa_agent.objectives`."""

from jepa_agent.objectives.constraints import Keep, keep
from jepa_agent.objectives.cost_to_go import FittedCostToGo
from jepa_agent.objectives.costs import (
    ActionCost,
    Cost,
    FeatureCost,
    GoalCost,
    LatentCost,
    LearnedCost,
    SmoothnessCost,
    WeightedSum,
)
from jepa_agent.objectives.words import SentenceGoal

__all__ = [
    "ActionCost",
    "Cost",
    "FeatureCost",
    "FittedCostToGo",
    "GoalCost",
    "Keep",
    "LatentCost",
    "LearnedCost",
    "SentenceGoal",
    "SmoothnessCost",
    "WeightedSum",
    "keep",
]
