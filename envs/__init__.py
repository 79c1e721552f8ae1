"""Gymnasium environments of our own, registered under ``JEPA/`` when `jepa_agent` is imported."""

from gymnasium.envs.registration import register, registry

for _name in ("ConstantReward", "ObservationIsValue", "Discounting", "ActionMatters", "ActionFollowsObservation"):
    if f"JEPA/{_name}-v0" not in registry:
        register(id=f"JEPA/{_name}-v0", entry_point=f"jepa_agent.envs.probes:{_name}")
