"""What a component or a key takes, on the screen."""

import pytest

from sslkit.cli.describe import describe, describe_key, spoken
from sslkit.cli.screen import Screen
from sslkit.errors import SSLKitError
from sslkit.plugins import active
from sslkit.registry import kind_of


@pytest.fixture
def described(capsys):
    def described(*words):
        if len(words) == 2:
            describe(Screen(), kind_of(words[0]), words[1], active().registry)
        else:
            describe_key(Screen(), words[0], active().registry)
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return described


def row(lines, name):
    return next(" ".join(line.split()) for line in lines if line.split()[:1] == [name])


def test_a_component_is_its_docstring_and_its_arguments(described):
    lines = described("collapse", "Centering")
    assert lines[0] == "Centering  collapse operator · sslkit 0.1.0"
    assert "  softmax((logits - center) / temperature), the center a running mean of raw teacher logits." in lines
    assert (
        "      center <- momentum * center + (1 - momentum) * mean over views, images and processes of logits" in lines
    )
    assert not any("Args:" in line or "Raises:" in line for line in lines)
    assert row(lines, "num_prototypes") == "num_prototypes from method.head.num_prototypes K. (a whole number)"
    assert row(lines, "momentum").startswith("momentum 0.9 in [0, 1];")
    assert row(described("loss", "MSE"), "reduction").startswith("reduction mean ")


def test_a_required_argument_says_so(described):
    assert row(described("schedules", "Constant"), "value").startswith("value required")


def test_a_key_is_its_section_its_components_or_its_type(described):
    assert row(described("method"), "teacher").startswith("teacher required how the teacher follows the student.")
    lines = described("method.loss")
    assert row(lines, "InfoNCE").startswith("InfoNCE ")
    assert lines[-1] == "  sslkit list losses NAME says what one takes"
    assert described("seed")[0] == "seed  a whole number"
    assert described("")[0] == "a recipe"
    with pytest.raises(SSLKitError, match="unknown key"):
        described("metod")


def test_backticks_are_for_editors():
    assert spoken("see `EMA` and ``x``") == "see EMA and x"
