"""Rules by which the teacher follows the student."""

from sslkit.teachers.copy import Copy as Copy
from sslkit.teachers.ema import EMA as EMA
from sslkit.teachers.previous_epoch import PreviousEpoch as PreviousEpoch
from sslkit.teachers.previous_step import PreviousStep as PreviousStep
