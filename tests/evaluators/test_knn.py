import math

import pytest
import torch
from torch.nn import functional as F

from sslkit.contracts import Backbone
from sslkit.errors import ComponentError, DataError, RecipeError
from sslkit.evaluators.knn import KNN, vote_ranks
from sslkit.evaluators.nearest import Nearest
from sslkit.types import EvaluationData, Features, LabelledImages


class Flat(Backbone):
    embed_dim = 1

    def forward(self, images, mask=None):
        return Features(images.flatten(1))


def labelled(features, labels, batch=7, name="images"):
    images, classes = features[:, :, None, None], len(set(labels.tolist()))
    return LabelledImages(name, lambda: zip(images.split(batch), labels.split(batch)), len(labels), classes)


def run(knn, train, train_labels, test, test_labels):
    data = EvaluationData(labelled(train, train_labels), labelled(test, test_labels))
    return dict(knn.run(Flat(), data))


def clusters(num_images, num_classes, dim=6, noise=1.2, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(num_classes, dim, generator=torch.Generator().manual_seed(99), dtype=dtype)
    labels = torch.randint(num_classes, (num_images,), generator=generator)
    return centers[labels] + noise * torch.randn(num_images, dim, generator=generator, dtype=dtype), labels


def naive(train, train_labels, test, test_labels, k, temperature):
    """One test image after another, the whole row of similarities, one vote after another."""
    top1 = top5 = 0
    train, test = F.normalize(train.double(), dim=1), F.normalize(test.double(), dim=1)
    for query, label in zip(test, test_labels.tolist()):
        similarities = (train @ query).tolist()
        nearest = sorted(range(len(train)), key=lambda i: -similarities[i])[:k]
        votes = {}
        for i in nearest:
            c = train_labels[i].item()
            votes[c] = votes.get(c, 0) + math.exp(similarities[i] / temperature)
        ranked = sorted(votes, key=lambda c: (-votes[c], c))
        top1 += ranked[0] == label
        top5 += label in ranked[:5]
    return 100 * top1 / len(test), 100 * top5 / len(test)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", [1, 13, 4096])
def test_chunked_search_equals_the_naive_one(dtype, chunk):
    train, test = clusters(230, 9, dtype=dtype), clusters(41, 9, dtype=dtype, seed=1)
    found = run(KNN(k=(20, 3, 100), temperature=0.1, chunk=chunk), *train, *test)
    assert list(found) == [f"knn/{top}@{k}" for k in (3, 20, 100) for top in ("top1", "top5")]
    for k in (3, 20, 100):
        expected = naive(*train, *test, k, 0.1)
        assert (found[f"knn/top1@{k}"], found[f"knn/top5@{k}"]) == pytest.approx(expected)
    assert 20 < found["knn/top1@20"] < 95  # neither chance nor trivial


def test_the_length_of_features_does_not_matter():
    train, test = clusters(100, 4), clusters(30, 4, seed=1)
    scaled = (train[0] * torch.rand(100, 1).add(0.1) * 50, train[1])
    assert run(KNN(k=(5,)), *scaled, *test) == run(KNN(k=(5,)), *train, *test)


def test_near_votes_count_more_as_the_temperature_falls():
    angle = torch.tensor([0.0, 0.6, -0.7])
    train, labels = torch.stack([angle.cos(), angle.sin()], 1), torch.tensor([0, 1, 1])
    query, label = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    # exp(1 / T) against exp(cos 0.6 / T) + exp(cos 0.7 / T)
    assert run(KNN(k=(3,), temperature=0.07), train, labels, query, label)["knn/top1@3"] == 100
    assert run(KNN(k=(3,), temperature=1.0), train, labels, query, label)["knn/top1@3"] == 0


def test_tiny_temperatures_do_not_overflow():
    train, test = clusters(60, 6), clusters(20, 6, seed=1)
    cold = run(KNN(k=(9,), temperature=1e-4), *train, *test)
    assert cold["knn/top1@9"] == run(KNN(k=(1,)), *train, *test)["knn/top1@1"]


def test_more_neighbours_than_training_images_means_all_of_them():
    train, test = clusters(12, 5), clusters(6, 5, seed=1)
    found = run(KNN(k=(12, 200)), *train, *test)
    assert found["knn/top1@200"] == found["knn/top1@12"]
    assert found["knn/top5@200"] == found["knn/top5@12"]


def test_fewer_than_five_classes_have_no_top5():
    assert set(run(KNN(k=(3,)), *clusters(40, 4), *clusters(5, 4, seed=1))) == {"knn/top1@3"}


def test_a_class_without_neighbours_is_never_among_the_five():
    train, labels = torch.eye(6), torch.arange(6)
    query = torch.tensor([[1.0, 0.9, 0, 0, 0, 0.1]])
    found = run(KNN(k=(2, 3)), train, labels, query, torch.tensor([5]))
    assert found == {"knn/top1@2": 0, "knn/top5@2": 0, "knn/top1@3": 0, "knn/top5@3": 100}


def test_a_test_label_that_training_never_saw_is_never_right():
    train, labels = clusters(30, 6)
    found = run(KNN(k=(30,)), train, labels, train[:4], torch.full((4,), 77))
    assert found == {"knn/top1@30": 0, "knn/top5@30": 0}


@pytest.mark.parametrize("num_test", [1, 99])
def test_few_test_images(num_test):
    train, test = clusters(150, 5), clusters(num_test, 5, seed=1)
    assert run(KNN(k=(20,)), *train, *test)["knn/top1@20"] == pytest.approx(naive(*train, *test, 20, 0.07)[0])


def test_equal_images_are_taken_in_order_and_equal_votes_go_to_the_lower_label():
    train, labels = torch.ones(6, 2), torch.tensor([3, 1, 1, 2, 2, 2])
    query, zero = torch.ones(1, 2), torch.tensor([3])
    assert run(KNN(k=(1,)), train, labels, query, zero)["knn/top1@1"] == 100
    assert run(KNN(k=(5,)), train, labels, query, torch.tensor([1]))["knn/top1@5"] == 100
    assert run(KNN(k=(5,)), train, labels, query, torch.tensor([2]))["knn/top1@5"] == 0


@pytest.mark.parametrize("query_chunk", [1, 4, 100])
def test_ties_do_not_depend_on_the_chunks(query_chunk):
    generator = torch.Generator().manual_seed(0)
    bank = torch.randint(-1, 2, (60, 3), generator=generator).float()  # whole numbers: sums are exact
    queries, names = torch.randint(-1, 2, (9, 3), generator=generator).float(), torch.arange(60)
    nearest = Nearest(queries, 8, query_chunk)
    for part, part_names in zip(bank.split(11), names.split(11)):
        nearest.update(part, part_names)
    expected = (queries @ bank.T).sort(dim=1, descending=True, stable=True)
    assert torch.equal(nearest.similarities, expected.values[:, :8])
    assert torch.equal(nearest.labels, expected.indices[:, :8])


def test_no_block_of_scores_grows_with_the_data(monkeypatch):
    sizes = []
    original = torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda self, k: sizes.append(self.shape) or original(self, k))
    nearest = Nearest(torch.randn(500, 4), 5, query_chunk=100)
    for part in torch.randn(900, 4).split(300):
        nearest.update(part, torch.zeros(300, dtype=torch.long))
    assert set(sizes) == {(100, 300)}


def test_ranks_of_several_k_from_one_pass_are_those_of_each():
    similarities = torch.rand(20, 15).sort(1, descending=True).values
    neighbours, labels = torch.randint(6, (20, 15)), torch.randint(6, (20,))
    together = list(vote_ranks(similarities, neighbours, labels, (2, 7, 30), 0.07))
    for k, rank in zip((2, 7, 30), together):
        (alone,) = vote_ranks(similarities[:, :k], neighbours[:, :k], labels, (k,), 0.07)
        assert torch.equal(rank < 1, alone < 1)
        assert torch.equal(rank < 5, alone < 5)


def test_the_protocol_is_said_with_its_temperature():
    assert KNN().protocol == "knn-v1: cosine, exp(sim/0.07), eval-mode features without augmentation"
    assert "exp(sim/0.1)" in KNN(temperature=0.1).protocol
    assert KNN(k=[20, 20, 5]).k == (5, 20)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"k": ()}, "k of KNN is one or more numbers of neighbours"),
        ({"k": (0, 5)}, r"k of KNN lies in \[1, inf\), not 0"),
        ({"temperature": 0.0}, r"temperature of KNN lies in \(0, inf\), not 0.0"),
        ({"temperature": float("inf")}, r"temperature of KNN lies in \(0, inf\), not inf"),
        ({"chunk": 0}, r"chunk of KNN lies in \[1, inf\), not 0"),
    ],
)
def test_impossible_arguments_are_refused(arguments, problem):
    with pytest.raises(RecipeError, match=problem):
        KNN(**arguments)


def test_missing_images_are_an_error():
    features, labels = clusters(5, 2)
    with pytest.raises(DataError, match="no images"):
        run(KNN(), features[:0], labels[:0], features, labels)


def test_a_number_of_neighbours_alone_is_refused_with_the_list_it_should_be():
    with pytest.raises(RecipeError, match=r"KNN: k is a list of numbers of neighbours, such as k=\[10\], not 10"):
        KNN(k=10)


def test_a_network_that_is_no_backbone_is_refused():
    part = labelled(*clusters(5, 2))
    with pytest.raises(ComponentError, match=r"Identity: forward returns a Tensor, not sslkit\.Features"):
        dict(KNN().run(torch.nn.Identity(), EvaluationData(part, part)))
