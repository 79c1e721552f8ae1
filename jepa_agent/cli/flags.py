"""The flags of every verb.

A flag in a group of `Parser.basics` is in ``--help``, any other in ``--help-all`` alone. Nothing is imported here that
imports torch: help and completion should not take seconds. Tests hold the names of modes, planners, terms and baselines,
which are therefore written out, to what there is.
"""

from __future__ import annotations

from typing import Any, Literal

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from jepa_agent.cli.parser import SECONDS, SEED, Parser
from jepa_agent.config import AgentConfig, ModelConfig, PlannerConfig

_MODES = (
    "actor, planner, every_4, auto, surprise, disagreement, random; the last four may have a budget, a share of the steps "
    "(auto_0.25) or milliseconds of searching per step (auto_2ms)"
)
_TERMS = (
    "prediction, cost, termination, infonce, energy, variance, covariance, sigreg, inverse_dynamics, smoothness, "
    "masked_latents, masked_steps, reconstruction, transition_energy, reachability, quasimetric, disagreement"
)
_EXACT = Literal["pendulum", "cartpole"]
FIRST_SEED, TRIED = 1_000, 5  # of the episodes that enjoy chooses from


def train() -> Parser:
    """Of ``jepa-agent train``."""
    parser = Parser("train", "Train an agent; writes a run folder.", "jepa-agent train --env CartPole-v1 -n 5000 -P")
    task = parser.basics("what is learned")
    _env(task, required=True)
    task.add_argument("-n", "--n-timesteps", type=PositiveInt, default=10_000, metavar="N", help="environment steps")
    task.add_argument("--n-envs", type=PositiveInt, default=1, metavar="N", help="environments side by side")
    task.add_argument("--seed", type=SEED, default=0, metavar="N", help="seed of everything")
    task.add_argument("--mode", type=str, default="auto", help=f"who acts: {_MODES}")
    measured = parser.basics("how it is measured")
    measured.add_argument(
        "--eval-freq", type=NonNegativeInt, default=1_000, metavar="N", help="steps between evaluations; 0 for none"
    )
    measured.add_argument("--eval-episodes", type=PositiveInt, default=10, metavar="N", help="episodes per evaluation")
    kept = parser.basics("what is kept and told")
    _folders(kept)
    kept.add_argument(
        "--save-freq",
        type=NonNegativeInt,
        default=0,
        metavar="N",
        help="steps between checkpoints; 0 saves at the end alone",
    )
    task.add_argument(
        "--from",
        type=str,
        metavar="RUN",
        help="run folder or model file whose weights to begin with; what is not said stays as there",
    )
    kept.add_argument(
        "--resume", type=str, metavar="RUN", help="run folder to go on with, by its own settings; -n may be larger"
    )
    kept.add_argument("-P", "--progress", action="store_true", help="show a progress bar")
    parser.add_argument("--config", action="config", help="YAML file with any of these settings")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda or auto")
    parser.add_argument("--eval-mode", type=str, help="who acts in evaluations; as --mode by default")
    parser.add_argument("--keep-last", type=PositiveInt, default=1, help="checkpoints to keep")
    parser.add_argument("--tensorboard-log", type=str, help="folder of the TensorBoard events; the run folder by default")
    parser.add_argument(
        "--tb-media",
        action="store_true",
        help="write pictures to TensorBoard at each evaluation: an episode as explain draws it, a map of recent "
        "latents; up to a tenth more CPU time at one each 1,000 steps",
    )
    parser.add_argument("--verbose", type=NonNegativeInt, default=0, help="1 prints SB3's log tables")
    parser.add_argument(
        "--on-bad-obs",
        choices=["error", "end-episode"],
        default="error",
        help="what follows an observation or reward that is not finite: the run ends, or the episode as by a time limit",
    )
    parser.add_argument(
        "--step-timeout",
        type=SECONDS,
        help="seconds a step may take; environments then run in processes of their own, begun anew if killed or hanging",
    )
    parser.add_argument(
        "--env-restarts",
        type=NonNegativeInt,
        default=0,
        help="how often each environment is rebuilt after it raised; the next time, the run ends, saved",
    )
    _terms(parser)
    _agent_settings(parser)
    return parser


def pretrain() -> Parser:
    """Of ``jepa-agent pretrain``."""
    parser = Parser(
        "pretrain",
        "Fit a world model without rewards, to random actions or to stored experience; writes a run folder.",
        "jepa-agent pretrain --env JEPA/TwoRooms-v0 -n 20000",
    )
    task = parser.basics("what is learned from")
    _env(task)
    task.add_argument(
        "--data",
        type=str,
        metavar="PATH",
        help="run folder, file of save_replay_buffer, or minari:NAME for a data set; in place of -n random steps",
    )
    task.add_argument("-n", "--n-timesteps", type=PositiveInt, default=10_000, metavar="N", help="random steps to collect")
    how = parser.basics("how it is learned")
    how.add_argument("--updates", type=PositiveInt, default=4_000, metavar="N", help="updates of the world model")
    _terms(how)
    how.add_argument("--seed", type=SEED, default=0, metavar="N", help="seed of everything")
    how.add_argument("--log-freq", type=PositiveInt, default=500, metavar="N", help="updates between two lines")
    kept = parser.basics("what is kept")
    _folders(kept)
    parser.add_argument("--config", action="config", help="YAML file with any of these settings")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda or auto")
    _agent_settings(parser)
    return parser


def evaluate() -> Parser:
    """Of ``jepa-agent evaluate``."""
    parser = Parser(
        "evaluate",
        "Measure a trained agent in each mode: returns, lengths, and CPU milliseconds that it takes to decide on a step, "
        "without the environment's own.",
        "jepa-agent evaluate runs/jepa/CartPole-v1_1 --episodes 20",
    )
    basics = _trained(parser)
    basics.add_argument(
        "--modes",
        type=str,
        nargs="+",
        default=["actor", "planner", "auto"],
        metavar="MODE",
        help=f"who acts, one mode after the other: {_MODES}",
    )
    _episodes(basics, 10, "episodes per mode", "seed of the first episode, equal for all modes")
    _format(basics)
    return parser


def enjoy() -> Parser:
    """Of ``jepa-agent enjoy``."""
    parser = Parser("enjoy", "Record an mp4 of a trained agent.", "jepa-agent enjoy runs/jepa/CartPole-v1_1 --mode planner")
    basics = _trained(parser)
    basics.add_argument("--mode", type=str, default="auto", help=f"who acts, for an agent of JEPA: {_MODES}")
    _episodes(
        basics,
        1,
        "episodes to record",
        f"seed of the first episode; by default, of seeds {FIRST_SEED} to {FIRST_SEED + TRIED - 1} (or as many as "
        "--episodes says, if more) the ones whose return is nearest to their median",
        None,
    )
    basics.add_argument(
        "--output", type=str, metavar="FOLDER", help="folder of the videos; 'videos_<n>' beside the model by default"
    )
    return parser


def explain() -> Parser:
    """Of ``jepa-agent explain``."""
    parser = Parser(
        "explain",
        "Draw one episode: who acted, predicted and realised cost, surprise, and imagined against observed latents.",
        "jepa-agent explain runs/jepa/Pendulum-v1_1 --mode auto --output explained.png",
    )
    basics = _trained(parser)
    basics.add_argument("--mode", type=str, default="auto", help=f"who acts: {_MODES}")
    basics.add_argument("--seed", type=SEED, default=1_000, metavar="N", help="seed of the episode")
    _picture(basics, "explained.png")
    return parser


def audit() -> Parser:
    """Of ``jepa-agent audit``."""
    parser = Parser(
        "audit",
        "Does what a trained agent expects come true? Plays episodes it has not learned from and sets costs and energies "
        "beside the costs that came; a table and a figure.",
        "jepa-agent audit runs/jepa/Pendulum-v1_1",
    )
    basics = _trained(parser)
    _episodes(basics, 10, "episodes by the actor, and as many by the planner", "seed of the first episode", 20_000)
    basics.add_argument("--steps", type=PositiveInt, default=200, metavar="N", help="states of each to judge, at most")
    basics.add_argument("--output", type=str, metavar="FOLDER", help="folder of audit.json and audit.png; the agent's own")
    _format(basics)
    return parser


def compare() -> Parser:
    """Of ``jepa-agent compare``."""
    parser = Parser(
        "compare",
        "Train JEPA and baselines over several seeds: a study file, or one environment by flags. Run again to go on.",
        "jepa-agent compare --env CartPole-v1 --baselines PPO DQN --seeds 3 -n 5000 --output runs/cartpole",
    )
    parser.add_argument(
        "study",
        type=str,
        nargs="?",
        help="YAML file of a study; beside it go flags of the first group, and --env and --baselines for modules it names",
    )
    ways = parser.basics("how the study is run")
    ways.add_argument(
        "--output", type=str, metavar="FOLDER", help="where results go and the study goes on; runs/NAME by default"
    )
    ways.add_argument(
        "--jobs", type=PositiveInt, metavar="N", help="runs at the same time; as many as there are cores by default"
    )
    ways.add_argument("--dry-run", action="store_true", help="say what would be run and how long it should take")
    ways.add_argument("--report-only", action="store_true", help="run nothing, report on what has finished so far")
    task = parser.basics("one environment, without a study file")
    _env(task)
    names = "PPO, A2C, DQN, QRDQN, SAC, TD3, TQC, CrossQ or module:Class; PPO, DQN, SAC, TD3 where they fit by default"
    task.add_argument("--baselines", type=str, nargs="*", metavar="NAME", help=names)
    task.add_argument("--seeds", type=PositiveInt, default=3, metavar="N", help="runs of each algorithm, seeds 0, 1, ...")
    task.add_argument(
        "-n", "--n-timesteps", type=PositiveInt, default=5_000, metavar="N", help="environment steps of a JEPA run"
    )
    task.add_argument(
        "--threshold", type=float, metavar="R", help="mean return that counts as solved; the environment's own by default"
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these settings")
    parser.add_argument("--ray", type=str, help="address of a Ray cluster to run on, or auto; needs the extra ray")
    parser.add_argument("--baseline-timesteps", type=PositiveInt, help="steps of a baseline's run; as many by default")
    parser.add_argument("--eval-freq", type=PositiveInt, default=500, help="steps between evaluations")
    parser.add_argument("--eval-episodes", type=PositiveInt, default=10, help="episodes per evaluation and mode")
    parser.add_argument(
        "--modes", type=str, nargs="+", default=["actor", "planner"], metavar="MODE", help="how JEPA is evaluated"
    )
    parser.add_argument("--stop-early", action="store_true", help="end a run once every mode has reached the threshold")
    _agent_settings(parser)
    return parser


def plot() -> Parser:
    """Of ``jepa-agent plot``."""
    parser = Parser(
        "plot",
        "Draw learning curves from any mix of run folders: ours, comparisons, monitor files, rl_zoo3's evaluations.npz.",
        "jepa-agent plot runs/pendulum logs/sac/Pendulum-v1_1 --output curves.png",
    )
    parser.add_argument(
        "runs",
        type=str,
        nargs="+",
        help="folders, or evaluations.npz; runs below one folder that differ in their number are averaged",
    )
    basics = parser.basics("flags")
    _picture(basics, "curves.png")
    basics.add_argument("--window", type=PositiveInt, default=10, metavar="N", help="episodes to average in monitor files")
    return parser


def speed() -> Parser:
    """Of ``jepa-agent speed``."""
    parser = Parser(
        "speed",
        "Time updates, plans and actions on this machine beside SB3's SAC; a minute, one thread.",
        "jepa-agent speed --output runs/speed.json",
    )
    parser.basics("flags").add_argument(
        "--output", type=str, default="runs/speed.json", metavar="FILE", help="where the numbers go, as JSON"
    )
    return parser


def plan_bench() -> Parser:
    """Of ``jepa-agent plan-bench``."""
    parser = Parser(
        "plan-bench",
        "Set planners side by side at equal operations and at equal milliseconds, on a trained agent or on a world model "
        "that makes no mistake, and draw the return against compute. Goes on where it was stopped.",
        "jepa-agent plan-bench runs/jepa/Pendulum-v1_1 --quick",
    )
    parser.add_argument("model", type=str, nargs="?", help="run folder or model file of a trained agent")
    basics = parser.basics("flags")
    basics.add_argument("--exact", type=_EXACT, help="an exact model instead of a trained agent")
    basics.add_argument(
        "--planners", type=str, nargs="+", metavar="KIND", help="kinds of planners; all that fit the actions by default"
    )
    _episodes(basics, 10, "episodes per measurement", "seed of the first episode, equal for all planners", 20_000)
    basics.add_argument("--quick", action="store_true", help="three episodes and few settings: a first look")
    basics.add_argument(
        "--output", type=str, default="runs/plan-bench", metavar="FOLDER", help="folder of results.json and the figure"
    )
    parser.add_argument(
        "--budgets",
        type=PositiveFloat,
        nargs="+",
        default=[1.0, 4.0],
        metavar="X",
        help="in units of the default planner's operations",
    )
    parser.add_argument("--horizon", type=PositiveInt, help="imagined steps; 3 for an agent by default")
    _other_env(parser)
    return parser


def envs() -> Parser:
    """Of ``jepa-agent envs``."""
    parser = Parser(
        "envs", "List installed environments, their spaces, and whether JEPA takes them.", "jepa-agent envs cart"
    )
    parser.add_argument("filter", type=str, default="", nargs="?", help="part of the name")
    _format(parser.basics("flags"))
    return parser


def doctor() -> Parser:
    """Of ``jepa-agent doctor``."""
    parser = Parser("doctor", "Say what this machine has and whether anything will be missed.", "jepa-agent doctor")
    parser.basics("flags").add_argument("--folder", type=str, default="runs", help="where run folders are to be made")
    return parser


def completion() -> Parser:
    """Of ``jepa-agent completion``."""
    parser = Parser(
        "completion", "Print a script that completes verbs and flags.", 'eval "$(jepa-agent completion bash)" in ~/.bashrc'
    )
    parser.add_argument("shell", choices=["bash", "zsh"], help="whose")
    return parser


def parser_of(verb: str) -> Parser:
    """The parser of a verb."""
    return globals()[verb.replace("-", "_")]()


# ---------------------------------------------------------------------- what verbs share


def _env(group: Any, required: bool = False) -> None:
    group.add_argument("--env", type=str, required=required, metavar="ID", help="Gymnasium id, or module:EnvId")
    group.add_argument(
        "--env-kwargs", type=dict, default={}, metavar="K:V", help="arguments of the environment, key:value ..."
    )


def _other_env(group: Any) -> None:
    group.add_argument(
        "--env",
        type=str,
        metavar="ID",
        help="another environment than the one trained on; or its id again, to name its module",
    )
    group.add_argument(
        "--env-kwargs", type=dict, metavar="K:V", help="its arguments, key:value ...; as trained if it is the same"
    )


def _trained(parser: Parser) -> Any:
    """The flags that `jepa_agent.cli.trained.load` reads, and the group of basic flags."""
    parser.add_argument("model", type=str, help="run folder or model file")
    basics = parser.basics("flags")
    _other_env(parser)
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda or auto")
    parser.add_argument("--planner", type=PlannerConfig, default=PlannerConfig(), help="what is not said stays as trained")
    return basics


def _agent_settings(parser: Parser) -> None:
    """What an agent is built from."""
    parser.add_argument("--agent", type=AgentConfig, default=AgentConfig())
    parser.add_argument("--model", type=ModelConfig, default=ModelConfig())
    parser.add_argument("--planner", type=PlannerConfig, default=PlannerConfig())


def _folders(group: Any) -> None:
    """Where a run is kept."""
    group.add_argument("--output", type=str, metavar="FOLDER", help="the run folder itself; the same command goes on there")
    group.add_argument(
        "-f", "--log-folder", type=str, default="runs", metavar="FOLDER", help="run folders are made below this one"
    )


def _terms(group: Any) -> None:
    """The flag that `jepa_agent.cli.common.chosen_terms` reads."""
    group.add_argument(
        "--terms",
        type=str,
        nargs="+",
        metavar="NAME:WEIGHT",
        help=f"what the world model is fitted to, weights 1 unless said: {_TERMS}; cost and termination are added unless "
        "named (termination:0 leaves it out); by default the --agent.*_coef say",
    )


def _episodes(group: Any, episodes: int, what: str, seed_of: str, seed: int | None = FIRST_SEED) -> None:
    group.add_argument("--episodes", type=PositiveInt, default=episodes, metavar="N", help=what)
    group.add_argument("--seed", type=SEED, default=seed, metavar="N", help=seed_of)


def _format(group: Any) -> None:
    """The flag that `jepa_agent.cli.tables.print_rows` reads."""
    group.add_argument("--format", choices=["table", "csv", "json"], default="table", help="how the rows are printed")


def _picture(group: Any, name: str) -> None:
    group.add_argument("--output", type=str, default=name, metavar="FILE", help="the picture; its suffix decides the format")
