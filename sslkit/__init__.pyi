"""What type checkers and editors see of the lazy names in __init__.py; a test compares the two."""

from sslkit.backbones.raw_pixels import RawPixels as RawPixels
from sslkit.backbones.timm_backbone import TimmBackbone as TimmBackbone
from sslkit.clock import Clock as Clock
from sslkit.collapse.batch_softmax import BatchSoftmax as BatchSoftmax
from sslkit.collapse.centering import Centering as Centering
from sslkit.collapse.sinkhorn_knopp import SinkhornKnopp as SinkhornKnopp
from sslkit.contracts import Backbone as Backbone
from sslkit.contracts import Callback as Callback
from sslkit.contracts import CollapseOperator as CollapseOperator
from sslkit.contracts import Evaluator as Evaluator
from sslkit.contracts import Head as Head
from sslkit.contracts import ImageSource as ImageSource
from sslkit.contracts import Loss as Loss
from sslkit.contracts import Optimizer as Optimizer
from sslkit.contracts import Predictor as Predictor
from sslkit.contracts import TeacherUpdate as TeacherUpdate
from sslkit.contracts import ViewMaker as ViewMaker
from sslkit.data.hugging_face import HuggingFaceImages as HuggingFaceImages
from sslkit.data.textures import Textures as Textures
from sslkit.evaluators.knn import KNN as KNN
from sslkit.heads.dino_head import DINOHead as DINOHead
from sslkit.heads.mlp_predictor import MLPPredictor as MLPPredictor
from sslkit.hookspecs import hookimpl as hookimpl
from sslkit.losses.cross_entropy import CrossEntropy as CrossEntropy
from sslkit.recipe import load as load
from sslkit.recipe import train as train
from sslkit.schedules import Constant as Constant
from sslkit.schedules import Cosine as Cosine
from sslkit.schedules import Schedule as Schedule
from sslkit.schedules import Warmup as Warmup
from sslkit.student_teacher import Branch as Branch
from sslkit.student_teacher import StudentTeacher as StudentTeacher
from sslkit.teachers.copy import Copy as Copy
from sslkit.teachers.ema import EMA as EMA
from sslkit.teachers.previous_epoch import PreviousEpoch as PreviousEpoch
from sslkit.teachers.previous_step import PreviousStep as PreviousStep
from sslkit.training.optimizers import AdamW as AdamW
from sslkit.training.step import train_step as train_step
from sslkit.types import Projection as Projection
from sslkit.types import Targets as Targets
from sslkit.types import ViewGroup as ViewGroup
from sslkit.types import Views as Views
from sslkit.views.multi_crop import MultiCrop as MultiCrop

__version__: str
