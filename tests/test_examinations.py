"""Examinations with several views: the maximum over views, and no figure from a handful."""

import numpy as np
import pytest

from cxr_foundation.errors import BadLabels
from cxr_foundation.evaluate import mean_auroc, over_views, score_examinations


def test_an_examination_scores_as_its_highest_view():
    names, best = over_views(["a", "b", "a", "c"], [[0.1, 5], [0.3, 1], [0.2, 4], [0.0, 0]])
    assert names == ["a", "b", "c"]
    np.testing.assert_array_equal(best, [[0.2, 5], [0.3, 1], [0.0, 0]])


def test_the_auroc_is_over_examinations_not_views():
    # By view the pairs (0.9 against 0.5, 0.2; 0.1 against both) give 1/2, by examination 1.
    names = ["sick", "sick", "well", "well"]
    scores = [[0.9], [0.1], [0.5], [0.2]]
    truth = [[1], [1], [0], [0]]
    (scored,) = score_examinations(names, scores, truth, ["edema"], fewest=1)
    assert (scored.auroc, scored.positives, scored.negatives) == (1.0, 1, 1)
    assert mean_auroc([scored]) == 1.0


@pytest.mark.parametrize(("positives", "given"), [(9, False), (10, True)])
def test_no_figure_is_given_under_ten_positives(positives, given):
    names = [str(i) for i in range(40)]
    truth = np.zeros((40, 1))
    truth[:positives] = 1
    (scored,) = score_examinations(names, np.arange(40.0)[:, None], truth, ["edema"])
    assert (scored.auroc is not None) is given
    assert scored.reason == ("" if given else "9 positives, fewer than 10")
    assert mean_auroc([scored]) == (0.0 if given else None)


def test_what_is_not_stated_is_left_out_of_one_finding_only():
    names = [str(i) for i in range(4)]
    truth = [[1, 1], [0, np.nan], [np.nan, 0], [0, 0]]
    first, second = score_examinations(
        names, [[0.9, 0.1], [0.1, 0.9], [0.95, 0.2], [0.3, 0.3]], truth, ["a", "b"], fewest=1
    )
    assert (first.auroc, first.positives, first.negatives) == (1.0, 1, 2)
    assert (second.auroc, second.positives, second.negatives) == (0.0, 1, 2)


def test_views_that_are_labelled_differently_are_refused():
    with pytest.raises(BadLabels, match="two of its views are labelled differently"):
        score_examinations(["a", "a"], [[0.1], [0.2]], [[1], [0]], ["edema"])


@pytest.mark.parametrize(
    ("scores", "truth"),
    [([[0.1], [np.nan]], [[1], [0]]), ([[0.1]], [[1], [0]]), ([[0.1], [0.2]], [[1], [0.5]])],
)
def test_scores_and_labels_that_do_not_fit_are_refused(scores, truth):
    with pytest.raises(ValueError):
        score_examinations(["a", "b"], scores, truth, ["edema"], fewest=1)
