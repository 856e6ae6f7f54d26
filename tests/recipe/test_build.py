"""Components built and linked."""

import numpy as np
import pytest

from sslkit.errors import DataError, RecipeError
from sslkit.recipe.sections import BuiltRecipe
from sslkit.schedules import Cosine


def test_parts_are_built_and_linked(base):
    parts = base().build()
    assert isinstance(parts, BuiltRecipe)
    assert parts.method.head.projector.in_features == 6
    assert parts.method.collapse.num_prototypes == 16
    assert isinstance(parts.method.teacher.momentum, Cosine)
    assert (parts.data.train.split, parts.data.test.split) == ("train", "test")
    assert parts.data.test.path == "somewhere"
    assert list(parts.views.mean) == [0.485, 0.456, 0.406]
    assert parts.method.predictor is None
    assert parts.runtime.callbacks == []


def test_an_open_class_takes_what_it_is_given(base):
    evaluator = base("--evaluation.evaluators", "[{TinyEvaluator: {word: [1, two]}}, TinyEvaluator]").build().evaluation
    assert [e.words for e in evaluator.evaluators] == [{"word": [1, "two"]}, {}]


def test_another_class_forgets_the_arguments(base):
    parts = base("--method.teacher", "OtherTeacher", "--method.teacher.patience", "3").build()
    assert type(parts.method.teacher).__name__ == "OtherTeacher"
    assert parts.method.teacher.patience == 3


def test_what_does_not_fit_into_memory_names_the_key(base, monkeypatch):
    monkeypatch.setattr("sslkit.data.textures.row_keys", lambda *_: np.empty(2**55))
    with pytest.raises(RecipeError, match=r"^data\.train: Textures does not fit into the memory of this machine$"):
        base("--data.train", "{Textures: {}}").build()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["--method.head.num_prototypes", "10000000000000"], "method.head: TinyHead does"),
        (["--method.head", "{DINOHead: {hidden_dim: 10000000}}"], "method.head: DINOHead does"),
        (["--method.collapse", "{NegativeQueue: {size: 10000000000000}}"], "method.collapse: NegativeQueue does"),
        (["--method.backbone", "{TimmBackbone: {name: test_vit, model_args: {embed_dim: 3000000}}}"], "Backbone does"),
    ],
)
def test_networks_larger_than_memory_are_refused_before_they_are_allocated(overrides, said, base):
    with pytest.raises(RecipeError) as refused:
        base(*overrides).build()
    assert said in str(refused.value)
    assert "memory of this machine" in str(refused.value)


def test_a_refusal_in_a_constructor_names_the_key(base):
    with pytest.raises(RecipeError, match=r"^method\.backbone: width is at least 1, not 0$"):
        base("--method.backbone.width", "0").build()
    with pytest.raises(DataError, match=r"^data\.train: there are no images in nowhere$"):
        base("--data", "nowhere").build()
