"""Comparing agents: baselines, runs, statistics, reports."""
