import pytest
import torch

from sslkit.collapse import Centering
from sslkit.contracts import Loss
from sslkit.errors import ComponentError, RecipeError
from sslkit.losses import CrossEntropy
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.teachers import EMA, Copy


class Regression(Loss):
    accepts = frozenset({"embedding", "logits"})

    def forward(self, student, targets):
        return (student.embedding[1] - targets.values[0]).square().mean()


def method(student, **slots):
    defaults = {"teacher_update": EMA(), "collapse": Centering(11), "loss": CrossEntropy()}
    return StudentTeacher(student, **(defaults | slots))


def test_the_teacher_starts_as_a_copy_with_storage_of_its_own(tiny):
    model = method(student := tiny.branch())
    for name, parameter in model.teacher.named_parameters():
        assert torch.equal(parameter, student.get_parameter(name))
        assert parameter.data_ptr() != student.get_parameter(name).data_ptr()


def test_an_independent_teacher_is_taken_as_it_is(tiny):
    student, other = tiny.branch(), tiny.branch()
    model = method(student, teacher=other)
    assert model.teacher is not other
    for name, parameter in model.teacher.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name))
    assert all(parameter.requires_grad for parameter in other.parameters())


def test_a_rule_that_shares_weights_has_no_second_network(tiny):
    model = method(student := tiny.branch(), teacher_update=Copy(), teacher=tiny.branch())
    assert model.teacher is student


@pytest.mark.parametrize(
    ("student_views", "teacher_views", "student_ids", "teacher_ids"),
    [
        ("all", "globals", (0, 1, 2, 3, 4), (0, 1)),
        ("globals", "globals", (0, 1), (0, 1)),
        ([0], [1], (0,), (1,)),
        ([4, 2], [1], (2, 4), (1,)),
    ],
)
def test_views_are_assigned_as_the_recipe_says(tiny, student_views, teacher_views, student_ids, teacher_ids):
    model = method(tiny.branch(), student_views=student_views, teacher_views=teacher_views)
    student, teacher = model.assign(tiny.views(num_local=3))
    assert (student.view_ids, teacher.view_ids) == (student_ids, teacher_ids)


def test_views_that_nobody_makes_are_refused(tiny):
    model = method(tiny.branch(), student_views=[0, 7], teacher_views=[1])
    with pytest.raises(RecipeError, match=r"views \[7\]"):
        model.assign(tiny.views())


@pytest.mark.parametrize(("student_views", "teacher_views"), [([0, 0], [1]), ("all", [1, 0, 1])])
def test_a_view_that_is_named_twice_is_refused(tiny, student_views, teacher_views):
    model = method(tiny.branch(), student_views=student_views, teacher_views=teacher_views)
    with pytest.raises(RecipeError, match="names a view twice"):
        model.assign(tiny.views())


@pytest.mark.parametrize(("student_views", "teacher_views"), [([0], [0]), ([1], [1]), ([], "globals")])
def test_nothing_to_compare_is_refused(tiny, student_views, teacher_views):
    model = method(tiny.branch(), student_views=student_views, teacher_views=teacher_views)
    with pytest.raises(RecipeError, match="no two different views"):
        model.assign(tiny.views())


def test_without_an_operator_the_targets_are_the_teachers_embeddings(tiny):
    model = method(tiny.branch(num_prototypes=None), collapse=None, loss=Regression())
    teacher = model.teacher_forward(tiny.views(num_local=0))
    targets = model.targets(teacher)
    assert targets.kind == "embedding"
    assert targets.values is teacher.embedding
    assert not targets.values.requires_grad


def test_parts_that_do_not_fit_are_refused_when_built(tiny):
    with pytest.raises(RecipeError, match="CrossEntropy takes probabilities, but a method without collapse operator"):
        method(tiny.branch(), collapse=None)


@pytest.mark.parametrize("crops", [torch.zeros(2, 4, 3, 9, 9), [torch.zeros(4, 3, 9, 9)] * 2])
def test_crops_that_nobody_numbered_are_refused(tiny, crops):
    model = StudentTeacher(tiny.branch(), teacher_update=EMA(), collapse=Centering(11), loss=CrossEntropy())
    with pytest.raises(TypeError, match=f"not a {type(crops).__name__}: Views.of makes them of crops"):
        model.assign(crops)


class Undeclared(Loss):
    forward = Regression.forward


def test_a_part_that_breaks_its_contract_is_refused_when_built(tiny):
    with pytest.raises(ComponentError, match=r"method\.loss: .*Undeclared does not set accepts"):
        method(tiny.branch(), loss=Undeclared())


def test_a_tensor_is_no_batch_of_views(tiny):
    model = method(tiny.branch())
    with pytest.raises(ComponentError, match=r"views are a sslkit\.Views, not a Tensor: Views\.of makes them"):
        train_step(model, torch.zeros(2, 4, 3, 9, 9), torch.optim.SGD(model.student.parameters(), 0.1))
