"""The folder that a run leaves, file by file."""
