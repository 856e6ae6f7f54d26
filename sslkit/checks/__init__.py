"""Checks that components keep to their contracts, and errors that name the component; used once, not at each step."""
