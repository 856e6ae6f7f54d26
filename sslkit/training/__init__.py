"""The training loop: data, rows, evaluations, signals. The step itself is `sslkit.method.step`."""
