"""TensorBoard events of a study: means with 95% intervals as scalars, single runs in the hparams tab."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from jepa_agent.experiments.figures import average, name_of
from jepa_agent.experiments.records import Curve
from jepa_agent.experiments.statistics import first_reaching, group

FOLDER = "tensorboard"
TAG = "eval/mean_reward"  # SB3's own, so that single runs and studies share a chart


def write_events(curves: Sequence[Curve], thresholds: Mapping[str, float], root: Path) -> None:
    """Write TensorBoard events of a study into ``root/tensorboard``, replacing what an earlier call wrote.

    Each environment and agent gets a TensorBoard run with its mean return over seeds and the ends of the 95% interval. Below
    it, every seed has its hyperparameters, final return and steps to the threshold in the hparams tab.

    Args:
        curves: Curves of the finished runs.
        thresholds: Return that counts as solved, by environment.
        root: The study's folder.
    """
    # TensorBoard shows all event files of a folder together, so old ones would appear beside the new.
    shutil.rmtree(root / FOLDER, ignore_errors=True)
    for (env, algorithm, mode), own in group(curves).items():
        agent = re.sub(r"[^\w.-]+", "-", name_of(algorithm, mode)).strip("-")
        folder = root / FOLDER / own[0].spec.folder(root).parent.name / agent
        band = average([curve.steps for curve in own], [curve.means for curve in own])
        lines = {"mean": band.mean}
        if band.interval is not None:
            lines["low"], lines["high"] = band.interval
        for name, values in lines.items():
            with SummaryWriter(str(folder / name)) as writer:
                for step, value in zip(band.x, values, strict=True):
                    writer.add_scalar(TAG, value, int(step))
        with SummaryWriter(str(folder)) as writer:
            for curve in own:
                settings = {"env": env, "algorithm": algorithm, "mode": mode, "seed": curve.spec.seed}
                # hparams takes numbers only, so a run that never reached the threshold shows nan.
                steps = first_reaching(curve.steps, curve.means, thresholds[env])
                results = {
                    "final_return": float(curve.means[-1]),
                    "steps_to_threshold": float("nan") if steps is None else steps,
                }
                writer.add_hparams(settings, results, run_name=f"seed{curve.spec.seed}")
