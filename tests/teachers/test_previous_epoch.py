"""The teacher is the student of the epoch before."""

from networks import differ, move, network, values

from sslkit.clock import Clock
from sslkit.teachers import PreviousEpoch


def test_previous_epoch_holds_the_teacher_within_an_epoch():
    student, teacher, rule = network(), network(), PreviousEpoch()
    start = values(teacher)
    for step in range(7):
        clock = Clock(step, 7, steps_per_epoch=3)
        rule.before_step(student, teacher, clock)
        move(student)
        rule.after_step(student, teacher, clock)
        if clock.is_epoch_end:
            start = values(student)
        assert not differ(teacher, start)
    assert differ(teacher, values(student))
