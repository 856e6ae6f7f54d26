"""Entry point of ``python -m sslkit``, the form that torchrun and accelerate launch start."""

# These two alone: Python has imported them already, and others could come from the working directory.
import os
import sys

# Python puts the working directory first on the path of ``-m``. It may be a run folder from elsewhere, whose files must
# not be imported in place of modules. Where sslkit itself is imported from there, it is the user's own checkout.
own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
if sys.path[0] in ("", os.getcwd()) and own != os.getcwd():  # noqa: PTH109
    del sys.path[0]

from sslkit.cli.main import main  # noqa: E402

sys.exit(main())
