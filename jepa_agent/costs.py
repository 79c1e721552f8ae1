"""Costs that a trained agent can be asked to plan for: the public names of `jepa_agent.objectives`."""

from jepa_agent.objectives.costs import Cost, FeatureCost, GoalCost, LatentCost, LearnedCost, WeightedSum

__all__ = ["Cost", "FeatureCost", "GoalCost", "LatentCost", "LearnedCost", "WeightedSum"]
