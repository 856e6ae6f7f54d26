"""Parameters of student and teacher are matched by name."""

import pytest
from networks import network
from torch import nn

from sslkit.teachers import EMA
from sslkit.teachers.matched_parameters import matched_parameters


def test_pairs_are_namesakes_and_the_student_may_have_more():
    student, teacher = network(), network()
    student.add_module("predictor", nn.Linear(2, 2))
    teachers, students = matched_parameters(student, teacher)
    assert len(teachers) == len(students) == 6
    for mine, (name, parameter) in zip(students, teacher.named_parameters(), strict=True):
        assert mine is student.get_parameter(name)
        assert mine.shape == parameter.shape


def test_a_teacher_parameter_without_a_namesake_is_named():
    student, teacher = network(), network()
    teacher.add_module("extra", nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"extra\.weight, extra\.bias"):
        EMA().after_step(student, teacher)
