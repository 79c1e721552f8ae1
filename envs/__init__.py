"""Gymnasium environments of our own, registered under ``JEPA/`` when `jepa_agent` is imported."""

from gymnasium.envs.registration import register, registry

_PROBES = (
    "ConstantReward",
    "ObservationIsValue",
    "Discounting",
    "ActionMatters",
    "ActionFollowsObservation",
    "ChoicesTogether",
    "BitsDiffer",
    "BrightOrDark",
    "PictureAndNumber",
    "CueAtFirst",
)

for _name in _PROBES:
    if f"JEPA/{_name}-v0" not in registry:
        register(id=f"JEPA/{_name}-v0", entry_point=f"jepa_agent.envs.probes:{_name}")

for _name, _make, _steps in (
    ("PendulumAngle", "pendulum_angle", 200),
    ("PendulumSpin", "pendulum_spin", 200),
    ("CartPosition", "cart_position", 500),
):
    if f"JEPA/{_name}-v0" not in registry:
        register(id=f"JEPA/{_name}-v0", entry_point=f"jepa_agent.envs.goals:{_make}", max_episode_steps=_steps)

for _name, _made_by, _steps, _threshold in (
    ("CartPoleNoVel-v1", "cartpole_without_velocities", 500, 450.0),
    ("PendulumNoVel-v1", "pendulum_without_velocity", 200, -300.0),
):
    if f"JEPA/{_name}" not in registry:
        register(
            id=f"JEPA/{_name}",
            entry_point=f"jepa_agent.envs.partial:{_made_by}",
            max_episode_steps=_steps,
            reward_threshold=_threshold,
        )

for _name in ("TwoRooms", "TwoRoomsPixels"):
    if f"JEPA/{_name}-v0" not in registry:
        register(id=f"JEPA/{_name}-v0", entry_point=f"jepa_agent.envs.rooms:{_name}", max_episode_steps=100)

# Sixteen inputs more that tell nothing: white noise, or what is seen in other environments.
for _name, _id, _other, _steps, _threshold in (
    ("Pendulum", "Pendulum-v1", "CartPole-v1", 200, -200.0),
    ("CartPole", "CartPole-v1", "Pendulum-v1", 500, 475.0),
    ("HalfCheetah", "HalfCheetah-v5", "CartPole-v1", 1000, 4800.0),
):
    for _kind, _kwargs in (("Noise", {"env": _id}), ("Others", {"env": _id, "other": _other})):
        if f"JEPA/{_name}{_kind}-v0" not in registry:
            register(
                id=f"JEPA/{_name}{_kind}-v0",
                entry_point=f"jepa_agent.envs.distractors:with_{_kind.lower()}",
                kwargs=_kwargs,
                max_episode_steps=_steps,
                reward_threshold=_threshold,
            )
