"""Metrics, intervals, probe, nearest neighbours and shortcuts against oracles of their own."""

import numpy as np
import pytest

from cxr_foundation.errors import BadLabels
from cxr_foundation.evaluate import (
    Interval,
    PatientBootstrap,
    accuracy,
    auroc,
    balanced_accuracy,
    knn_scores,
    paired_bootstrap,
    probe_scores,
)
from cxr_foundation.evaluate.features import standardise
from cxr_foundation.evaluate.intervals import weighted_auroc
from cxr_foundation.evaluate.shortcuts import border, metadata, raw_pixels, thumbnails


def auroc_by_pairs(labels, scores):
    """The definition: share of pairs that are in order, ties one half."""
    positives = [s for s, y in zip(scores, labels, strict=True) if y]
    negatives = [s for s, y in zip(scores, labels, strict=True) if not y]
    pairs = [(p, n) for p in positives for n in negatives]
    return sum((p > n) + 0.5 * (p == n) for p, n in pairs) / len(pairs)


def two_clouds(rng, *, images=200, width=16, gap=1.0):
    labels = np.arange(images) % 2
    features = rng.normal(size=(images, width))
    features[:, 0] += gap * labels
    return features, labels


# AUROC


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([0, 1], [0.1, 0.9], 1.0),
        ([0, 1], [0.9, 0.1], 0.0),
        ([0, 1], [0.5, 0.5], 0.5),
        ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.75),
        ([1, 0, 1, 0], [2, 2, 2, 1], 0.75),
        ([1, 1, 0], [-np.pi, 7, 7], 0.25),
    ],
)
def test_auroc_counts_pairs_in_order_and_half_of_ties(labels, scores, expected):
    assert auroc(labels, scores) == expected


def test_auroc_of_many_score_vectors_equals_the_definition_on_each():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, size=23)
    scores = rng.integers(0, 6, size=(3, 4, 23))
    expected = [[auroc_by_pairs(labels, s) for s in block] for block in scores]
    np.testing.assert_allclose(auroc(labels, scores), expected, rtol=0, atol=1e-12)


def test_auroc_equals_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    for _ in range(20):
        labels = np.concatenate([[0, 1], rng.integers(0, 2, size=60)])
        scores = np.round(rng.normal(size=62), 1)
        assert auroc(labels, scores) == pytest.approx(metrics.roc_auc_score(labels, scores))


def test_auroc_does_not_change_under_a_monotone_map():
    rng = np.random.default_rng(2)
    features, labels = two_clouds(rng)
    assert auroc(labels, features[:, 0]) == auroc(labels, np.exp(features[:, 0]))


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0], []])
def test_one_class_has_no_auroc(labels):
    with pytest.raises(BadLabels, match="one class only"):
        auroc(labels, np.zeros(len(labels)))


def test_labels_other_than_0_and_1_are_refused():
    with pytest.raises(BadLabels, match="not only 0 and 1"):
        auroc([0, 1, 2], [0, 1, 2])


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        auroc([0, 1], [np.nan, 1])


def test_scores_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\) for 2 labels"):
        auroc([0, 1], [1, 2, 3])


def test_accuracy_is_fooled_by_prevalence_and_balanced_accuracy_is_not():
    labels, predictions = [0, 0, 0, 1], [0, 0, 0, 0]
    assert accuracy(labels, predictions) == 0.75
    assert balanced_accuracy(labels, predictions) == 0.5


# Intervals


def test_an_image_of_weight_k_counts_like_k_images():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, size=30).astype(bool)
    scores = rng.integers(0, 5, size=30).astype(float)
    weights = rng.integers(0, 4, size=(30, 5)).astype(float)
    expected = [
        auroc_by_pairs(np.repeat(labels, w), np.repeat(scores, w)) for w in weights.T.astype(int)
    ]
    np.testing.assert_allclose(weighted_auroc(labels, scores, weights), expected, atol=1e-12)


def test_the_images_of_a_patient_are_resampled_together():
    # Each patient twice: the bootstrap must be as wide as with each patient once.
    rng = np.random.default_rng(4)
    features, labels = two_clouds(rng, images=120)
    scores, patients = features[:, 0], [str(i) for i in range(120)]

    def width(repeat):
        bootstrap = PatientBootstrap(
            np.tile(labels, repeat), patients * repeat, generator=np.random.default_rng(0)
        )
        interval = bootstrap.interval(np.tile(scores, repeat))
        return interval.high - interval.low

    assert width(2) == pytest.approx(width(1), rel=1e-9)


def test_no_resample_loses_a_class():
    bootstrap = PatientBootstrap([1, 0, 0, 0], list("abcd"), generator=np.random.default_rng(0))
    assert np.isfinite(bootstrap.auroc([0.5, 0.1, 0.7, 0.2])).all()


def test_a_row_minus_itself_is_exactly_zero():
    rng = np.random.default_rng(5)
    features, labels = two_clouds(rng)
    patients = [str(i // 2) for i in range(200)]
    draws = features[:, :4].T
    assert paired_bootstrap(
        labels, draws, draws, patients, generator=np.random.default_rng(0)
    ) == Interval(estimate=0.0, low=0.0, high=0.0)


def test_pairing_makes_the_interval_of_a_difference_narrower():
    rng = np.random.default_rng(6)
    features, labels = two_clouds(rng)
    patients = [str(i) for i in range(200)]
    near = features[:, 0] + 0.1 * features[:, 1]
    bootstrap = PatientBootstrap(labels, patients, generator=np.random.default_rng(0))
    paired = bootstrap.difference(features[:, 0], near)
    one = bootstrap.interval(near)
    assert paired.high - paired.low < 0.3 * (one.high - one.low)


def test_the_estimate_is_the_mean_auroc_of_the_draws_not_the_auroc_of_their_mean():
    labels = [0, 0, 1, 1]
    draws = np.array([[0.0, 9.0, 1.0, 2.0], [9.0, 0.0, 1.0, 2.0]])
    bootstrap = PatientBootstrap(labels, list("abcd"), generator=np.random.default_rng(0))
    assert bootstrap.interval(draws).estimate == 0.5
    assert auroc(labels, draws.mean(axis=0)) == 0.0


def test_draws_that_differ_widen_the_interval():
    rng = np.random.default_rng(7)
    features, labels = two_clouds(rng)
    patients = [str(i) for i in range(200)]
    same = np.tile(features[:, 0], (10, 1))
    differing = same * np.linspace(-1, 3, 10)[:, None] + rng.normal(size=(10, 200))
    bootstrap = PatientBootstrap(labels, patients, generator=np.random.default_rng(0))
    narrow, wide = bootstrap.interval(same), bootstrap.interval(differing)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_several_encoders_per_draw_are_averaged():
    rng = np.random.default_rng(8)
    features, labels = two_clouds(rng)
    stacked = features[:, :6].T.reshape(2, 3, 200)
    bootstrap = PatientBootstrap(
        labels, [str(i) for i in range(200)], generator=np.random.default_rng(0)
    )
    mean = (bootstrap.auroc(stacked[0]) + bootstrap.auroc(stacked[1])) / 2
    np.testing.assert_allclose(bootstrap.auroc(stacked), mean, atol=1e-12)


def test_the_same_seed_gives_the_same_interval():
    rng = np.random.default_rng(9)
    features, labels = two_clouds(rng)
    patients = [str(i) for i in range(200)]
    args = (labels, features[:, 0], features[:, 1], patients)
    first = paired_bootstrap(*args, generator=np.random.default_rng(1))
    assert first == paired_bootstrap(*args, generator=np.random.default_rng(1))
    assert first != paired_bootstrap(*args, generator=np.random.default_rng(2))


def test_intervals_of_a_paired_difference_cover_the_truth():
    # Two scores of equal truth, 200 patients: the true difference is 0.
    rng = np.random.default_rng(10)
    labels = np.arange(200) % 2
    patients = [str(i) for i in range(200)]
    covered = 0
    for _ in range(300):
        signal = rng.normal(size=200) + labels
        pair = signal + 0.7 * rng.normal(size=(2, 200))
        interval = paired_bootstrap(
            labels, pair[0], pair[1], patients, generator=rng, resamples=400
        )
        covered += interval.low <= 0 <= interval.high
    # Three binomial standard errors around 95 %.
    assert 0.91 <= covered / 300 <= 0.985


def test_patients_must_match_the_labels_in_number():
    with pytest.raises(ValueError, match="1 patients for 2 labels"):
        PatientBootstrap([0, 1], ["a"], generator=np.random.default_rng(0))


# Features


def test_standardise_uses_the_training_rows_alone():
    train, other = standardise([[0.0], [2.0]], [[5.0]])
    np.testing.assert_array_equal(train, [[-1.0], [1.0]])
    np.testing.assert_array_equal(other, [[4.0]])


def test_a_column_that_does_not_vary_in_training_is_zero_everywhere():
    train, other = standardise([[0.1, 1.0], [0.1, 3.0]], [[1e9, 2.0]])
    np.testing.assert_array_equal(train[:, 0], 0)
    np.testing.assert_array_equal(other[:, 0], 0)


# Nearest neighbours


def test_the_nearest_neighbour_decides_for_one_neighbour():
    train = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
    scores = knn_scores([[0.9, 0.1], [-0.8, 0.1]], train, [1, 0, 0, 1], neighbours=1)
    assert scores.tolist() == [1.0, 0.0]


def test_a_vote_weighs_exp_of_cosine_over_temperature():
    # Standardising leaves this cross as it is (up to one factor): cosines 1, -1, 0, 0.
    train = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
    (score,) = knn_scores([[5.0, 0.0]], train, [1, 0, 0, 0], neighbours=4, temperature=0.5)
    assert score == pytest.approx(np.exp(2) / (np.exp(2) + np.exp(-2) + 2))


def test_all_vote_where_there_are_fewer_than_asked_for():
    assert knn_scores([[1.0]], [[1.0], [-1.0]], [1, 0], neighbours=20).shape == (1,)


def test_knn_separates_two_clouds():
    rng = np.random.default_rng(11)
    features, labels = two_clouds(rng, gap=4.0)
    assert auroc(labels[100:], knn_scores(features[100:], features[:100], labels[:100])) > 0.9


def test_knn_refuses_one_class():
    with pytest.raises(BadLabels, match="one class only"):
        knn_scores([[1.0]], [[1.0], [2.0]], [1, 1])


# Probe


@pytest.mark.parametrize("width", [5, 300])
def test_the_probe_is_scikit_learns_on_standardised_features(width):
    linear_model = pytest.importorskip("sklearn.linear_model")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(12)
    features, labels = two_clouds(rng, images=60, width=width)
    reference = make_pipeline(
        StandardScaler(),
        linear_model.LogisticRegression(C=0.5 / width, tol=1e-10, max_iter=10_000),
    ).fit(features[:40], labels[:40])
    scores = probe_scores(features[40:], features[:40], labels[:40], strength=0.5)
    np.testing.assert_allclose(scores, reference.decision_function(features[40:]), atol=1e-5)


def test_the_probe_does_not_change_when_every_feature_is_given_twice():
    rng = np.random.default_rng(13)
    features, labels = two_clouds(rng, images=60)
    once = probe_scores(features[40:], features[:40], labels[:40])
    doubled = np.concatenate([features, features], axis=1)
    twice = probe_scores(doubled[40:], doubled[:40], labels[:40])
    np.testing.assert_allclose(once, twice, atol=1e-5)


def test_the_probe_separates_two_clouds():
    rng = np.random.default_rng(14)
    features, labels = two_clouds(rng, gap=4.0)
    assert auroc(labels[100:], probe_scores(features[100:], features[:100], labels[:100])) > 0.97


def test_the_probe_survives_features_without_any_variance():
    scores = probe_scores(np.zeros((2, 3)), np.zeros((4, 3)), [0, 1, 0, 1])
    np.testing.assert_allclose(scores, 0, atol=1e-9)


def test_the_probe_refuses_one_class():
    with pytest.raises(BadLabels, match="one class only"):
        probe_scores([[1.0]], [[1.0], [2.0]], [0, 0])


# Shortcuts


def test_a_thumbnail_averages_blocks_where_the_size_is_a_multiple():
    image = np.zeros((64, 64), dtype=np.float32)
    image[:32] = 1
    (small,) = thumbnails([image])
    assert small.shape == (32, 32)
    np.testing.assert_allclose(small[:15], 1, atol=1e-6)
    np.testing.assert_allclose(small[17:], 0, atol=1e-6)


def test_a_thumbnail_is_antialiased():
    checkerboard = (np.indices((256, 256)).sum(axis=0) % 2).astype(np.float32)
    (small,) = thumbnails([checkerboard])
    np.testing.assert_allclose(small, 0.5, atol=0.01)


def test_raw_pixels_are_all_1024_and_the_border_is_the_outer_448():
    small = np.zeros((2, 32, 32), dtype=np.float32)
    small[1, 4:28, 4:28] = 1
    assert raw_pixels(small).shape == (2, 1024)
    assert raw_pixels(small)[1].sum() == 24 * 24
    assert border(small).shape == (2, 448)
    assert not border(small).any()


def test_metadata_are_area_aspect_age_and_indicators():
    table = metadata(
        sizes=[(100, 50), (10, 10)], views=["PA", "AP"], sexes=["", "F"], ages=[75.0, None]
    )
    expected = [
        [np.log(5000), np.log(2), 1.0, 1.0, 0, 1, 1, 0],
        [np.log(100), 0.0, 0.0, 0.0, 1, 0, 0, 1],
    ]
    np.testing.assert_allclose(table, expected)
