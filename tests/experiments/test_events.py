from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jepa_agent.experiments.events import TAG, write_events
from jepa_agent.experiments.records import Curve, RunSpec


def curve(seed: int, means: list[float]) -> Curve:
    spec = RunSpec("JEPA", "CartPole-v1", seed, 400, 100, 1, modes=("actor",))
    steps = 100 * np.arange(1, len(means) + 1)
    return Curve(spec, "actor", steps, np.array(means)[:, None], steps / 100, np.ones(len(means)))


def scalars(folder: Path) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in EventAccumulator(str(folder)).Reload().Scalars(TAG)]


def test_curves_are_means_between_their_ends(tmp_path: Path) -> None:
    for _ in range(2):  # a second report replaces the first
        write_events([curve(0, [1.0, 400.0]), curve(1, [3.0, 500.0])], {"CartPole-v1": 475}, tmp_path)
    folder = tmp_path / "tensorboard" / "CartPole-v1" / "JEPA-actor"
    assert scalars(folder / "mean") == [(100, 2.0), (200, 450.0)]
    assert scalars(folder / "low") == [(100, 1.0), (200, 400.0)]
    assert scalars(folder / "high") == [(100, 3.0), (200, 500.0)]


def test_every_seed_stands_in_the_hparams_tab(tmp_path: Path) -> None:
    write_events([curve(0, [1.0, 400.0]), curve(1, [3.0, 500.0])], {"CartPole-v1": 475}, tmp_path)
    for seed, final, needed in ((0, 400.0, None), (1, 500.0, 200.0)):
        events = EventAccumulator(str(tmp_path / "tensorboard" / "CartPole-v1" / "JEPA-actor" / f"seed{seed}")).Reload()
        assert events.Scalars("final_return")[0].value == final
        found = events.Scalars("steps_to_threshold")[0].value
        assert np.isnan(found) if needed is None else found == needed
        assert "_hparams_/session_start_info" in events.summary_metadata


def test_one_seed_has_no_ends(tmp_path: Path) -> None:
    write_events([curve(0, [1.0])], {"CartPole-v1": 475}, tmp_path)
    folder = tmp_path / "tensorboard" / "CartPole-v1" / "JEPA-actor"
    assert not (folder / "low").exists()
    assert scalars(folder / "mean") == [(100, 1.0)]
