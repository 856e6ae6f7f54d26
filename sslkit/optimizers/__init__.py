"""Built-in optimizers."""

from sslkit.optimizers.adamw import AdamW as AdamW
from sslkit.optimizers.larc import LARC as LARC
from sslkit.optimizers.lars import LARS as LARS
from sslkit.optimizers.sgd import SGD as SGD
