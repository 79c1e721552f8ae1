"""A planner of your own: hill climbing, passed to the agent as an object.

A planner sees nothing but a function that scores action sequences ``(B, N, H, A)``: B rows, N candidates, horizon H, A
numbers per action, in [-1, 1].

Run: python examples/own_planner.py
"""

from dataclasses import dataclass

import torch
from stable_baselines3.common.evaluation import evaluate_policy

from jepa_agent import JEPA, Planner
from jepa_agent.types import CostFn, Plan, PlanInit


@dataclass(frozen=True)
class HillClimbing(Planner):
    """Changes the actor's own sequence at random and keeps what costs less."""

    horizon: int = 3
    rounds: int = 6
    spread: float = 0.3

    def plan(self, cost_fn: CostFn, init: PlanInit) -> Plan:
        best = init.sequences[:, 0]  # (B, H, A), the actor's own
        cost = cost_fn(best.unsqueeze(1))[:, 0]
        for _ in range(self.rounds):
            noise = init.draw(*best.shape[1:]).to(best)  # one draw serves all rows: no row depends on its neighbours
            changed = (best + self.spread * noise).clamp(-1.0, 1.0)
            new_cost = cost_fn(changed.unsqueeze(1))[:, 0]
            better = new_cost < cost
            best = torch.where(better[:, None, None], changed, best)
            cost = torch.where(better, new_cost, cost)
        return Plan(actions=best, mean=best, std=torch.full_like(best, self.spread), cost=cost)


def main(steps: int = 1_000) -> dict[str, float]:
    """Train for ``steps`` steps; mean returns of three episodes of the actor alone and of searching at every step."""
    model = JEPA("MlpPolicy", "Pendulum-v1", planner=HillClimbing(), learning_starts=100, seed=0).learn(steps)
    returns = {}
    for mode in ("actor", "planner"):
        model.set_mode(mode)
        mean, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=3)
        returns[mode] = float(mean)
    return returns


if __name__ == "__main__":
    print(main())
