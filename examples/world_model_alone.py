"""The world model without its agent: it encodes, imagines, scores plans, and steps like an environment for SB3's SAC.

SAC is trained in imagination alone. It then acts in the real environment, whose observations are encoded.

Run: python examples/world_model_alone.py
"""

import gymnasium as gym
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from jepa_agent import JEPA


def main(steps: int = 3_000) -> dict[str, float]:
    """Train JEPA for ``steps`` steps in Pendulum-v1, then SAC for as many in its world model."""
    agent = JEPA("MlpPolicy", "Pendulum-v1", learning_starts=100, seed=0).learn(steps)
    world = agent.world_model
    observations = agent.replay_buffer.sample(min(steps, 1_000)).observations

    with torch.no_grad():
        # Latents of observations, and where two sequences of five actions lead from there. Actions lie in [-1, 1].
        z = world.encode(observations[:1])  # (1, D)
        candidates = torch.stack([torch.ones(5, 1), -torch.ones(5, 1)])  # (N, H, A): all torque one way, the other
        path = world.imagine(z, candidates[:1])  # (1, H+1, D)
        costs = world.trajectory_cost(z, candidates.unsqueeze(0))  # (1, N), in units of -reward
        print("imagined", tuple(path.shape), "costs of the two", costs.squeeze(0).tolist())

    # The model as an environment: episodes start where the agent has been.
    imagined = world.as_env(agent.action_space, observations, max_steps=100)
    sac = SAC("MlpPolicy", imagined, learning_starts=100, seed=0).learn(steps)

    real = gym.wrappers.TransformObservation(
        gym.make("Pendulum-v1"),
        lambda obs: world.encode(obs).detach().numpy(),
        imagined.observation_space,
    )
    untrained, _ = evaluate_policy(SAC("MlpPolicy", Monitor(real), seed=0), Monitor(real), n_eval_episodes=3)
    trained, _ = evaluate_policy(sac, Monitor(real), n_eval_episodes=3)
    return {"untrained": float(untrained), "trained in imagination": float(trained)}


if __name__ == "__main__":
    print(main())
