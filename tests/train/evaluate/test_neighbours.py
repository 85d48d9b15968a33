"""The index finds what brute force finds, leaves the query's own group out, and survives a file."""

import numpy as np
import pytest

from vis2img.errors import OutputError, ParameterError, Vis2imgError
from vis2img.train.evaluate.neighbours import Index, Voting, neighbour_means, unit_vectors


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)


def brute(vectors, queries):
    """Return all rows by falling cosine."""
    cosine = (queries @ vectors.T) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(queries, axis=1)[:, None]
    return np.argsort(-cosine, axis=1), cosine


def test_neighbours_and_similarities_are_those_of_all_cosines(vectors):
    queries = np.random.default_rng(1).normal(size=(20, 12))
    order, cosine = brute(vectors, queries)
    rows, similarity = Index(vectors).search(queries, 7)
    np.testing.assert_array_equal(rows, order[:, :7])
    np.testing.assert_allclose(similarity, np.take_along_axis(cosine, order[:, :7], axis=1), atol=1e-5)


def test_the_graph_finds_nearly_all_that_brute_force_finds(vectors):
    order, cosine = brute(vectors, vectors)
    rows, similarity = Index(vectors, exact_up_to=100).search(vectors, 5)
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(rows, order[:, :5], strict=True)]) > 0.95
    np.testing.assert_allclose(similarity, np.take_along_axis(cosine, rows, axis=1), atol=1e-5)


@pytest.mark.parametrize("exact_up_to", [1000, 100])
def test_nothing_of_the_excluded_group_is_found_and_nothing_else_is_missed(vectors, exact_up_to):
    group = np.where(np.arange(300) < 60, "large", "x")
    group[60:] = np.char.add("s", (np.arange(240) // 2).astype(str))
    queries = vectors[50:80]
    index = Index(vectors, group=group, exact_up_to=exact_up_to)
    rows, _ = index.search(queries, 4, exclude_group=group[50:80])
    order, _ = brute(vectors, queries)
    expected = [[r for r in row if group[r] != g][:4] for row, g in zip(order, group[50:80], strict=True)]
    assert (group[rows] != group[50:80, None]).all()
    assert np.mean(rows == expected) == 1 if exact_up_to == 1000 else np.mean(rows == expected) > 0.9


def test_a_group_that_is_not_in_the_index_excludes_nothing(vectors):
    index = Index(vectors, group=np.arange(300) * 2)
    np.testing.assert_array_equal(index.search(vectors[:3], 1, exclude_group=np.array([1, 3, 999]))[0][:, 0], range(3))


@pytest.mark.parametrize("exact_up_to", [1000, 100])
def test_an_index_survives_its_file(vectors, tmp_path, exact_up_to):
    ids = np.array([f"J{i:04d}" for i in range(300)])
    index = Index(vectors, ids, np.arange(300) // 3, exact_up_to=exact_up_to)
    index.save(tmp_path / "patches.index")
    again = Index.load(tmp_path / "patches.index")
    assert [path.name for path in tmp_path.iterdir()] == ["patches.index"]
    for before, after in zip(index.search(vectors, 6), again.search(vectors, 6), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(again.ids, ids)
    np.testing.assert_array_equal(again.group, np.arange(300) // 3)


def test_a_file_that_is_no_index_and_a_folder_that_is_none_are_named(vectors, tmp_path):
    (tmp_path / "notes.txt").write_text("no index")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for name in ("notes.txt", "other.npz", "absent"):
        with pytest.raises(Vis2imgError, match=name):
            Index.load(tmp_path / name)
    with pytest.raises(OutputError, match="absent"):
        Index(vectors).save(tmp_path / "absent" / "patches.index")


@pytest.mark.parametrize(
    ("k", "queries", "message"),
    [(300, slice(0, 1), "neighbours are impossible"), (0, slice(0, 1), "neighbours are impossible")],
)
def test_more_neighbours_than_are_left_are_refused(vectors, k, queries, message):
    index = Index(vectors)
    with pytest.raises(ParameterError, match=message):
        index.search(vectors[queries], k, exclude_group=np.array([0]))


def test_embeddings_of_other_sizes_or_with_nan_are_refused(vectors):
    with pytest.raises(ParameterError, match="3 numbers"):
        Index(vectors).search(np.ones((2, 3)), 1)
    with pytest.raises(ParameterError, match="1 of 2 embeddings"):
        Index(np.array([[1.0, np.nan], [1.0, 2.0]]))
    with pytest.raises(ParameterError, match="299 ids"):
        Index(vectors, ids=np.arange(299))
    with pytest.raises(ParameterError, match="shape"):
        Index(np.ones(4))


def test_vectors_are_made_of_length_one_and_zeros_stay_zero():
    np.testing.assert_allclose(unit_vectors(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("weight", ["exponential", "cosine"])
@pytest.mark.parametrize("k", [1, 4, 40])
def test_the_means_over_neighbours_are_those_by_brute_force_each_sample_by_its_nearest_view(k, weight):
    rng = np.random.default_rng(7)
    middle = rng.normal(size=(40, 6))
    views = (middle + 0.5 * rng.normal(size=(5, 40, 6))).astype(np.float32)
    values, queries, mean = rng.normal(size=(40, 2)), rng.normal(size=(30, 6)), np.full(6, 0.2)
    cosine = np.stack([brute(view - mean, queries - mean)[1] for view in views]).max(axis=0)
    nearest = np.argsort(-cosine, axis=1)[:, :k]
    nearest_cosine = np.take_along_axis(cosine, nearest, axis=1)
    votes = np.exp(nearest_cosine / 0.07) if weight == "exponential" else np.maximum(nearest_cosine, 1e-6)
    expected = (votes[:, :, None] * values[nearest]).sum(axis=1) / votes.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        neighbour_means(views, values, mean, Voting(k, weight))(queries), expected, rtol=1e-3, atol=1e-5
    )


def with_equals():
    """A thousand vectors, and three of them two thousand times more each."""
    vectors = np.random.default_rng(5).normal(size=(1000, 12)).astype(np.float32)
    return np.concatenate([np.repeat(vectors[:3], 2000, axis=0), vectors])


def test_the_graph_finds_neighbours_beside_thousands_of_equal_vectors(tmp_path):
    table = with_equals()
    order, cosine = brute(table, table[-500:])
    index = Index(table, exact_up_to=100)
    for each in (index, saved(index, tmp_path / "index")):
        rows, similarity = each.search(table[-500:], 5)
        expected = np.take_along_axis(cosine, order[:, :5], axis=1)
        # By their cosines, as which of equal vectors comes first nobody can tell.
        assert np.mean(np.abs(similarity - expected) < 1e-5) > 0.95
        np.testing.assert_allclose(np.take_along_axis(cosine, rows, axis=1), similarity, atol=1e-5)
        assert all(len(set(found)) == 5 for found in rows)


@pytest.mark.parametrize("exact_up_to", [100, 100_000])
def test_equal_vectors_are_found_together_and_a_query_is_not_its_own_neighbour(exact_up_to):
    table = with_equals()
    index = Index(table, exact_up_to=exact_up_to)
    queries = np.array([0, 1999, 2000, 6500])
    rows, similarity = index.search(table[queries], 50, exclude_group=queries)
    assert not (rows == queries[:, None]).any()
    assert all(len(set(found)) == 50 for found in rows)
    np.testing.assert_allclose(similarity[:3], 1.0, atol=1e-5)
    np.testing.assert_array_equal(rows[:3] // 2000, [[0] * 50, [0] * 50, [1] * 50])


def saved(index, path):
    index.save(path)
    return Index.load(path)
