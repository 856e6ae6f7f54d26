"""The plugin that offers the components of sslkit itself, by the hooks that all plugins use.

Classes are named as strings, so that listing them imports nothing.
"""

from sslkit.hookspecs import Offers, hookimpl


@hookimpl
def backbones() -> Offers:
    """Backbones."""
    return ["sslkit.backbones.timm_backbone:TimmBackbone", "sslkit.backbones.raw_pixels:RawPixels"]


@hookimpl
def heads() -> Offers:
    """Projectors, with prototypes where the method has them."""
    return ["sslkit.heads.dino_head:DINOHead", "sslkit.heads.mlp_head:MLPHead", "sslkit.heads.swav_head:SwAVHead"]


@hookimpl
def predictors() -> Offers:
    """Predictors of the student."""
    return ["sslkit.heads.mlp_predictor:MLPPredictor"]


@hookimpl
def view_makers() -> Offers:
    """View makers."""
    return ["sslkit.views.multi_crop:MultiCrop"]


@hookimpl
def teacher_updates() -> Offers:
    """Rules by which the teacher follows the student."""
    return [
        "sslkit.teachers.ema:EMA",
        "sslkit.teachers.previous_epoch:PreviousEpoch",
        "sslkit.teachers.previous_step:PreviousStep",
        "sslkit.teachers.copy:Copy",
    ]


@hookimpl
def collapse_operators() -> Offers:
    """Collapse operators, from teacher outputs to targets."""
    return [
        "sslkit.collapse.centering:Centering",
        "sslkit.collapse.sinkhorn_knopp:SinkhornKnopp",
        "sslkit.collapse.batch_softmax:BatchSoftmax",
        "sslkit.collapse.negative_queue:NegativeQueue",
    ]


@hookimpl
def losses() -> Offers:
    """Losses between student outputs and targets."""
    return ["sslkit.losses.cross_entropy:CrossEntropy", "sslkit.losses.info_nce:InfoNCE", "sslkit.losses.mse:MSE"]


@hookimpl
def optimizers() -> Offers:
    """Optimizers."""
    return [
        "sslkit.optimizers.adamw:AdamW",
        "sslkit.optimizers.larc:LARC",
        "sslkit.optimizers.lars:LARS",
        "sslkit.optimizers.sgd:SGD",
    ]


@hookimpl
def schedules() -> Offers:
    """Schedules of hyper-parameters."""
    return ["sslkit.schedules:Constant", "sslkit.schedules:Cosine", "sslkit.schedules:Warmup"]


@hookimpl
def image_sources() -> Offers:
    """Image sources."""
    return ["sslkit.data.hugging_face:HuggingFaceImages", "sslkit.data.textures:Textures"]


@hookimpl
def evaluators() -> Offers:
    """Evaluators of a frozen backbone."""
    return ["sslkit.evaluators.knn:KNN"]


@hookimpl
def callbacks() -> Offers:
    """Callbacks."""
    return ["sslkit.callbacks.summary_picture:SummaryPicture"]
