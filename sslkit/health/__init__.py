"""Diagnosis of a run: the numbers of a step, the verdict, its probable causes."""
