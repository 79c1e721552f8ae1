"""Four environments side by side under VecNormalize: its statistics are saved with the agent and used while evaluating.

VecNormalize saves by pickle: load files of your own only. `JEPA.save_checkpoint` keeps the statistics without.

Run: python examples/vec_normalize.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from jepa_agent import JEPA


def main(steps: int = 4_000) -> dict[str, float]:
    """Train for ``steps`` steps in all; mean return of four episodes, and whether the statistics are still those saved."""
    with TemporaryDirectory() as folder:
        # Train, and save the agent and the statistics beside it.
        env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=4, seed=0))
        model = JEPA("MlpPolicy", env, learning_starts=100, seed=0).learn(steps)
        model.save(Path(folder, "agent"))
        env.save(Path(folder, "statistics.pkl"))

        # Load both. While evaluating, statistics stay as they are and returns are in the environment's own units.
        fresh = VecNormalize.load(Path(folder, "statistics.pkl"), make_vec_env("Pendulum-v1", n_envs=4, seed=1))
        fresh.training, fresh.norm_reward = False, False
        agent = JEPA.load(Path(folder, "agent"), env=fresh)
        mean, _ = evaluate_policy(agent, fresh, n_eval_episodes=4)
    kept = np.array_equal(env.obs_rms.mean, fresh.obs_rms.mean) and env.obs_rms.count == fresh.obs_rms.count
    return {"mean return": float(mean), "statistics kept": kept}


if __name__ == "__main__":
    print(main())
