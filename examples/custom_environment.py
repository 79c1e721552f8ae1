"""An environment of your own: trained in as an object, evaluated in by its registered name.

Anything that follows Gymnasium's interface will do. The command line takes one by module and id:
``jepa-agent train --env my_module:PointMass-v0``.

Run: python examples/custom_environment.py
"""

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from jepa_agent import JEPA


class PointMass(gym.Env):
    """A mass on a line is pushed to the origin and held there."""

    observation_space = gym.spaces.Box(-10.0, 10.0, (2,), np.float32)  # position, velocity
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)  # force

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.velocity = self.np_random.uniform(-1.0, 1.0, 2)
        return self._observation(), {}

    def step(self, action):
        self.velocity = 0.9 * self.velocity + 0.2 * float(action[0])
        self.position = float(np.clip(self.position + 0.2 * self.velocity, -5.0, 5.0))
        reward = -(self.position**2) - 0.01 * float(action[0]) ** 2
        return self._observation(), reward, False, False, {}

    def _observation(self):
        return np.array([self.position, self.velocity], np.float32)


gym.register("PointMass-v0", entry_point=PointMass, max_episode_steps=50)


def main(steps: int = 1_000) -> dict[str, float]:
    """Train for ``steps`` steps; mean returns of five episodes before and after."""
    check_env(PointMass(), skip_render_check=True)
    model = JEPA("MlpPolicy", TimeLimit(PointMass(), 50), learning_starts=100, seed=0)
    by_name = Monitor(gym.make("PointMass-v0"))
    before, _ = evaluate_policy(model, by_name, n_eval_episodes=5)
    model.learn(steps)
    after, _ = evaluate_policy(model, by_name, n_eval_episodes=5)
    return {"before": float(before), "after": float(after)}


if __name__ == "__main__":
    print(main())
