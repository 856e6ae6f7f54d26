"""Collapse operators, which turn teacher outputs into targets and prevent collapse to a constant output."""

from sslkit.collapse.batch_softmax import BatchSoftmax as BatchSoftmax
from sslkit.collapse.centering import Centering as Centering
from sslkit.collapse.negative_queue import NegativeQueue as NegativeQueue
from sslkit.collapse.sinkhorn_knopp import SinkhornKnopp as SinkhornKnopp
