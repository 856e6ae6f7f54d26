"""The table of a run's last figures."""

from io import StringIO

from rich.console import Console

from sslkit.cli.results import show_results


def row(network, step=0, evaluator="knn", protocol="knn-v1", **metrics):
    named = {name.replace("_", "/"): value for name, value in metrics.items()}
    return {
        "network": network,
        "step": step,
        "evaluator": evaluator,
        "protocol": protocol,
        "dataset": "birds test",
        "metrics": named,
    }


def shown(results, num_classes=None):
    console = Console(file=StringIO(), width=100)
    show_results(results, num_classes, console)
    return [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]


def test_the_last_figure_of_each_network_counts_and_networks_come_last():
    lines = shown(
        [
            row("student", 3, top1=1.0),
            row("teacher", 3, top1=2.0),
            row("untrained", 0, top1=3.25),
            row("student", 6, top1=9.96),
        ]
    )
    assert lines[0] == "knn on birds test, in percent"
    assert lines[1] == "knn-v1"
    assert lines[2].split() == ["untrained", "student", "teacher"]
    assert lines[-1].split() == ["top1", "3.2", "10.0", "2.0"]


def test_chance_is_k_of_the_classes():
    lines = shown([row("teacher", top1=50.0, **{"knn_top5@20": 80.0})], num_classes=8)
    assert lines[2].split() == ["chance", "teacher"]
    assert lines[-1].split() == ["knn/top5@20", "62.5", "80.0"]
    assert shown([row("teacher", **{"knn_top5@20": 80.0})], num_classes=3)[-1].split() == [
        "knn/top5@20",
        "100.0",
        "80.0",
    ]


def test_variants_of_raw_pixels_are_one_column_of_their_best_metric_by_metric():
    variants = [row(f"raw-pixels ({name})", a=a, b=b) for name, a, b in (("plain", 1.0, 9.0), ("centered", 5.0, 2.0))]
    lines = shown([*variants, row("teacher", a=7.0)])
    assert lines[2].split() == ["raw", "pixels*", "teacher"]
    assert [line.split() for line in lines[-3:-1]] == [["a", "5.0", "7.0"], ["b", "9.0"]]
    assert lines[-1].startswith("* the best of plain")


def test_every_protocol_has_a_table_of_its_own():
    lines = shown([row("teacher", x=1.0), row("teacher", evaluator="linear", protocol="linear-v1", y=2.0)])
    assert [line for line in lines if " on birds" in line] == [
        "knn on birds test, in percent",
        "linear on birds test, in percent",
    ]
    assert shown([]) == []
