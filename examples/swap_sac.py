"""JEPA in place of SAC: the same lines train and evaluate both on Pendulum-v1.

Run: python examples/swap_sac.py
"""

from stable_baselines3 import SAC
from stable_baselines3.common.evaluation import evaluate_policy

from jepa_agent import JEPA


def main(steps: int = 2_000) -> dict[str, float]:
    """Train both for ``steps`` steps; mean returns of three episodes, by algorithm."""
    returns = {}
    for algorithm in (SAC, JEPA):
        model = algorithm("MlpPolicy", "Pendulum-v1", learning_starts=100, seed=0)
        model.learn(steps)
        mean, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=3)
        returns[algorithm.__name__] = float(mean)
    return returns


if __name__ == "__main__":
    print(main())
