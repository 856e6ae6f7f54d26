"""Entry point of ``python -m sslkit``, the form that torchrun and accelerate launch start."""

import sys

from sslkit.cli.main import main

sys.exit(main())
