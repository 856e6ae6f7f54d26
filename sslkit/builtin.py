"""Register the components that ship with sslkit, through the hooks that plugins use."""

from sslkit.hookspecs import Offers, hookimpl


@hookimpl
def backbones() -> Offers:
    """Networks."""
    return ["sslkit.backbones.timm_backbone:TimmBackbone", "sslkit.backbones.raw_pixels:RawPixels"]


@hookimpl
def heads() -> Offers:
    """Projectors and prototypes."""
    return ["sslkit.heads.dino_head:DINOHead", "sslkit.heads.mlp_head:MLPHead", "sslkit.heads.swav_head:SwAVHead"]


@hookimpl
def predictors() -> Offers:
    """The student's own networks."""
    return ["sslkit.heads.mlp_predictor:MLPPredictor"]


@hookimpl
def view_makers() -> Offers:
    """Views of an image."""
    return ["sslkit.views.multi_crop:MultiCrop"]


@hookimpl
def teacher_updates() -> Offers:
    """How the teacher follows."""
    return [
        "sslkit.teachers.ema:EMA",
        "sslkit.teachers.previous_epoch:PreviousEpoch",
        "sslkit.teachers.previous_step:PreviousStep",
        "sslkit.teachers.copy:Copy",
    ]


@hookimpl
def collapse_operators() -> Offers:
    """Teacher outputs to targets."""
    return [
        "sslkit.collapse.centering:Centering",
        "sslkit.collapse.sinkhorn_knopp:SinkhornKnopp",
        "sslkit.collapse.batch_softmax:BatchSoftmax",
        "sslkit.collapse.negative_queue:NegativeQueue",
    ]


@hookimpl
def losses() -> Offers:
    """Distances to the targets."""
    return ["sslkit.losses.cross_entropy:CrossEntropy", "sslkit.losses.info_nce:InfoNCE", "sslkit.losses.mse:MSE"]


@hookimpl
def optimizers() -> Offers:
    """Gradients to steps."""
    return [
        "sslkit.optimizers.adamw:AdamW",
        "sslkit.optimizers.larc:LARC",
        "sslkit.optimizers.lars:LARS",
        "sslkit.optimizers.sgd:SGD",
    ]


@hookimpl
def schedules() -> Offers:
    """Numbers that change along a run."""
    return ["sslkit.schedules:Constant", "sslkit.schedules:Cosine", "sslkit.schedules:Warmup"]


@hookimpl
def image_sources() -> Offers:
    """Images."""
    return ["sslkit.data.hugging_face:HuggingFaceImages", "sslkit.data.textures:Textures"]


@hookimpl
def evaluators() -> Offers:
    """Frozen tests."""
    return ["sslkit.evaluators.knn:KNN"]


@hookimpl
def callbacks() -> Offers:
    """Watchers."""
    return ["sslkit.callbacks.summary_picture:SummaryPicture"]
