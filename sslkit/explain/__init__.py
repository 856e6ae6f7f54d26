"""Explain what a recipe will do and cost, and recommend changes, without running it."""
