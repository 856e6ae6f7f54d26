"""The teacher is the student one step ago."""

from networks import differ, move, network, values

from sslkit.clock import Clock
from sslkit.teachers import PreviousStep


def test_previous_step_is_the_student_before_the_optimizer_moves_it():
    student, teacher, rule = network(), network(), PreviousStep()
    for step in range(3):
        before = values(student)
        rule.before_step(student, teacher, Clock(step, 3, 2))
        move(student)
        rule.after_step(student, teacher, Clock(step, 3, 2))
        assert not differ(teacher, before)
        assert differ(teacher, values(student))
