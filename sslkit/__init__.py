"""Self-supervised learning for images: one student-teacher training step of exchangeable components.

The public names below are imported on first use.
"""

# No other import: before `__main__` corrects the path of ``python -m sslkit``, it begins with the working directory.
import importlib

__version__ = "0.1.0"

_PLACES = {
    "AdamW": "sslkit.optimizers.adamw",
    "Backbone": "sslkit.contracts",
    "BatchSoftmax": "sslkit.collapse.batch_softmax",
    "Branch": "sslkit.method.branch",
    "Callback": "sslkit.contracts",
    "Centering": "sslkit.collapse.centering",
    "Clip": "sslkit.method.gradients",
    "Clock": "sslkit.clock",
    "CollapseOperator": "sslkit.contracts",
    "Recommendation": "sslkit.recommendation",
    "Constant": "sslkit.schedules",
    "Copy": "sslkit.teachers.copy",
    "Cosine": "sslkit.schedules",
    "CrossEntropy": "sslkit.losses.cross_entropy",
    "DINOHead": "sslkit.heads.dino_head",
    "EMA": "sslkit.teachers.ema",
    "EvaluationData": "sslkit.types",
    "Evaluator": "sslkit.contracts",
    "Executor": "sslkit.method.executor",
    "Features": "sslkit.types",
    "Head": "sslkit.contracts",
    "HuggingFaceImages": "sslkit.data.hugging_face",
    "ImageSource": "sslkit.contracts",
    "InfoNCE": "sslkit.losses.info_nce",
    "KNN": "sslkit.evaluators.knn",
    "LARC": "sslkit.optimizers.larc",
    "LARS": "sslkit.optimizers.lars",
    "LabelledImages": "sslkit.types",
    "Loss": "sslkit.contracts",
    "MLPHead": "sslkit.heads.mlp_head",
    "MLPPredictor": "sslkit.heads.mlp_predictor",
    "MSE": "sslkit.losses.mse",
    "MultiCrop": "sslkit.views.multi_crop",
    "NegativeQueue": "sslkit.collapse.negative_queue",
    "Optimizer": "sslkit.contracts",
    "Predictor": "sslkit.contracts",
    "PreviousEpoch": "sslkit.teachers.previous_epoch",
    "PreviousStep": "sslkit.teachers.previous_step",
    "Projection": "sslkit.types",
    "RawPixels": "sslkit.backbones.raw_pixels",
    "SGD": "sslkit.optimizers.sgd",
    "Sample": "sslkit.types",
    "Schedule": "sslkit.schedules",
    "RunContext": "sslkit.recommendation",
    "SinkhornKnopp": "sslkit.collapse.sinkhorn_knopp",
    "StudentTeacher": "sslkit.method.student_teacher",
    "SwAVHead": "sslkit.heads.swav_head",
    "Targets": "sslkit.types",
    "TeacherUpdate": "sslkit.contracts",
    "TrainingRun": "sslkit.contracts",
    "Textures": "sslkit.data.textures",
    "TimmBackbone": "sslkit.backbones.timm_backbone",
    "ViewGroup": "sslkit.types",
    "ViewMaker": "sslkit.contracts",
    "Views": "sslkit.types",
    "Warmup": "sslkit.schedules",
    "export": "sslkit.exporting.export",
    "hookimpl": "sslkit.hookspecs",
    "load": "sslkit.recipe",
    "matching_pairs": "sslkit.types",
    "parameter_groups": "sslkit.optimizers.parameter_groups",
    "set_rates": "sslkit.optimizers.parameter_groups",
    "split_batch_norm": "sslkit.method.batch_norm",
    "train": "sslkit.launch",
    "train_step": "sslkit.method.step",
}

__all__ = ["__version__", *_PLACES]


# Lazy, since torch, timm and kornia take seconds to import and ``sslkit --help`` needs none of them.
def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
