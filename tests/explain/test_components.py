"""The components of a recipe as calls, where they come from and what changed them."""

import pytest

from sslkit.explain.components import component_rows
from sslkit.recipe import load


@pytest.fixture
def rows(tmp_path):
    def rows(*words, text=""):
        name = "quickstart"
        if text:
            (tmp_path / "mine.yaml").write_text(f"base: quickstart\n{text}")
            name = str(tmp_path / "mine.yaml")
        return {key: (call.plain, origin) for key, call, origin in component_rows(load(name, words))}

    return rows


def test_components_are_calls_with_what_the_recipe_gives_them(rows):
    found = rows()
    assert found["method.loss"] == ("CrossEntropy(temperature=0.1)", "sslkit 0.1.0")
    assert found["method.teacher"][0] == "EMA(momentum=Cosine(start=0.96, end=0.999))"
    assert found["optimization.optimizer"][0] == "AdamW()"
    assert "model_args={layers: [1, 1, 1, 1], channels: [16, 32, 64, 128]" in found["method.backbone"][0]
    assert "method.predictor" not in found
    assert "method" not in found


def test_what_changes_a_component_is_named_in_its_order(rows):
    found = rows("--method.collapse.momentum", "0.5", text="method: {collapse: {temperature: 0.07}}\n")
    assert found["method.collapse"] == (
        "Centering(momentum=0.5, temperature=0.07)",
        "sslkit 0.1.0\n+ mine\n+ command line",
    )
    assert found["method.loss"][1] == "sslkit 0.1.0"


def test_a_component_of_a_plugin_names_its_package(rows):
    call, origin = rows("--method.collapse", "DistributionAlignment")["method.collapse"]
    assert call == "DistributionAlignment()"
    assert origin.startswith("sslkit-distribution-alignment")


def test_a_section_is_what_it_changes_in_yamls_words(rows):
    words = ["--method.separate_views", "true", "--method.student_views", "[0, 1]", "--method.init", "copy"]
    call, origin = rows(*words)["method"]
    assert call == "separate_views=true, student_views=[0, 1]"
    assert origin == "command line"
