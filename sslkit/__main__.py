"""``python -m sslkit`` is the program ``sslkit``, for torchrun."""

import sys

from sslkit.cli.main import main

sys.exit(main())
