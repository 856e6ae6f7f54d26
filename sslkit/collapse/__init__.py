"""Collapse operators, which keep student and teacher from agreeing on a constant."""

from sslkit.collapse.batch_softmax import BatchSoftmax as BatchSoftmax
from sslkit.collapse.centering import Centering as Centering
from sslkit.collapse.negative_queue import NegativeQueue as NegativeQueue
from sslkit.collapse.sinkhorn_knopp import SinkhornKnopp as SinkhornKnopp
