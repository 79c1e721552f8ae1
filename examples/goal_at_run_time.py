"""Another goal without retraining: an agent that learned to hold the pendulum upright is asked to let it rotate.

``set_cost`` asks until it is told otherwise, ``using_cost`` for the length of a block. Beside `FeatureCost`, a function of
what an observation shows, `jepa_agent.costs` has `GoalCost` (an observation to reach), `LatentCost`, `LearnedCost`, and
their weighted sums.

Run: python examples/goal_at_run_time.py
"""

import numpy as np

from jepa_agent import JEPA
from jepa_agent.costs import FeatureCost

SPEED = 4.0  # rad/s


def mean_speed(model: JEPA, steps: int = 100) -> float:
    """Mean angular velocity over the second half of a stretch, in rad/s; the agent's state goes from step to step."""
    env = model.get_env()
    env.seed(0)
    obs, state, start, speeds = env.reset(), None, np.ones(1, bool), []
    for _ in range(steps):
        action, state = model.predict(obs, state, start, deterministic=True)
        obs, _, start, _ = env.step(action)
        speeds.append(obs[0, 2])
    return float(np.mean(speeds[steps // 2 :]))


def main(steps: int = 2_000) -> dict[str, float]:
    """Train for ``steps`` steps; mean angular velocities as trained, as asked, and as trained again."""
    model = JEPA("MlpPolicy", "Pendulum-v1", learning_starts=100, seed=0).learn(steps)
    rotate = FeatureCost(lambda features: (features[..., 0] - SPEED).square(), features=[2])  # of (cos, sin, velocity)
    before = mean_speed(model)
    with model.using_cost(rotate):
        asked = mean_speed(model)
    return {"before": before, "asked": asked, "after": mean_speed(model)}


if __name__ == "__main__":
    print(main())
