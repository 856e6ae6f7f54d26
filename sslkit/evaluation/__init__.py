"""Evaluations: a backbone and evaluators to results."""
