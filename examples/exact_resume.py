"""A run that goes on from a checkpoint equals, to the last bit, the run that saved it and went on.

A checkpoint holds weights, optimisers, the replay buffer, normalisation and all random numbers. It ends the episodes under
way, so a run that never saved takes another course.

Run: python examples/exact_resume.py
"""

from tempfile import TemporaryDirectory

import torch
from torch.nn.utils import parameters_to_vector

from jepa_agent import JEPA


def main(steps: int = 1_000) -> dict[str, float]:
    """Train for ``steps`` steps, save, go on for half as many, and do that again from the checkpoint."""
    with TemporaryDirectory() as folder:
        model = JEPA("MlpPolicy", "CartPole-v1", learning_starts=100, seed=0).learn(steps)
        model.save_checkpoint(folder)
        saved = parameters_to_vector(model.policy.parameters()).detach()
        model.learn(steps // 2, reset_num_timesteps=False)

        # Another process, another day.
        resumed = JEPA.resume(folder, "CartPole-v1").learn(steps // 2, reset_num_timesteps=False)

    one, other = (parameters_to_vector(each.policy.parameters()).detach() for each in (model, resumed))
    return {
        "steps": resumed.num_timesteps,
        "learned since": float((other - saved).abs().max()),
        "equal": torch.equal(one, other),
    }


if __name__ == "__main__":
    print(main())
