"""Experiments that compare agents: baselines, training runs, statistics, figures and reports."""
