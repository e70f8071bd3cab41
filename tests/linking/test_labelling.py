"""Several labellers who err, made into one probability; and the faults that label models are known for."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from db.queries.votes import Vote
from phenotype.linking.labelling import BadVotes, combine, label_model, read_votes, vote_by
from phenotype.linking.mapper import DENIED, POSSIBLE, PRESENT, UNMENTIONED

KINDS = np.eye(3)


def says_of(truth, right, *, coverage=0.8, seed=0):
    """Votes (studies, concepts, labellers, 3) of labellers that are right so often, (sensitivity, specificity)."""
    rng = np.random.default_rng(seed)
    says = np.zeros((*truth.shape, len(right), 3))
    for k, (sensitivity, specificity) in enumerate(right):
        yes = rng.random(truth.shape) < np.where(truth, sensitivity, 1 - specificity)
        speaks = rng.random(truth.shape) < coverage
        says[:, :, k] = KINDS[np.where(yes, 0, 2)] * speaks[..., None]
    return says


def truth_of(prevalence, n=2000, concepts=3, seed=1):
    return np.random.default_rng(seed).random((n, concepts)) < prevalence


def test_accuracies_are_learned_without_truth():
    truth = truth_of(0.3)
    right = [(0.95, 0.97), (0.8, 0.9), (0.6, 0.75)]
    probable, tables = label_model(says_of(truth, right))
    found = np.stack([tables[..., 0, 0], tables[..., 1, 2]], axis=-1).mean(axis=0)
    np.testing.assert_allclose(found, right, atol=0.05)
    known = ~np.isnan(probable)
    assert roc_auc_score(truth[known], probable[known]) > 0.95
    # better than counting heads
    says = says_of(truth, right)
    heads = says[..., 0].sum(2) / np.maximum(says.sum(axis=(2, 3)), 1)
    wrong = ((probable > 0.5) != truth)[known].mean()
    assert wrong < 0.8 * ((heads > 0.5) != truth)[known].mean()
    # and probable means probable
    for low, high in [(0.05, 0.3), (0.3, 0.7), (0.7, 0.95)]:
        between = known & (probable > low) & (probable < high)
        assert truth[between].mean() == pytest.approx(probable[between].mean(), abs=0.1)


@pytest.mark.parametrize("prevalence", [0.02, 0.05, 0.9])
def test_rare_and_frequent_concepts_keep_their_share(prevalence):
    """Not drawn to one half, nor to nothing at all."""
    truth = truth_of(prevalence)
    probable, _ = label_model(says_of(truth, [(0.85, 0.97), (0.8, 0.96), (0.8, 0.97)]))
    found = np.nanmean(probable)
    assert found == pytest.approx(prevalence, abs=0.4 * min(prevalence, 1 - prevalence) + 0.01)
    known = ~np.isnan(probable)
    assert probable[known & truth].mean() > 0.45
    assert probable[known & ~truth].mean() < 0.4


def test_what_nobody_asserts_is_no_crash_and_no_finding():
    says = np.zeros((50, 1, 2, 3))
    says[:, 0, :, 2] = 1
    probable, _ = label_model(says)
    assert (probable < 0.05).all()
    assert np.isnan(label_model(np.zeros((50, 1, 2, 3)))[0]).all()


def test_a_labeller_that_is_worse_than_chance_is_worthless_and_turns_nothing_round():
    truth = truth_of(0.3)
    good = [(0.9, 0.95), (0.85, 0.9)]
    probable, tables = label_model(says_of(truth, [*good, (0.1, 0.2)]))
    known = ~np.isnan(probable)
    assert roc_auc_score(truth[known], probable[known]) > 0.9
    assert probable[known & truth].mean() > probable[known & ~truth].mean() + 0.5
    np.testing.assert_allclose(tables[:, 2, 0], tables[:, 2, 1])


def test_abstention_is_no_denial():
    truth = truth_of(0.3)
    says = says_of(truth, [(0.9, 0.95), (0.85, 0.9), (0.8, 0.9)], coverage=1.0)
    # a labeller that speaks only to assert: its silence must not count against
    quiet = says.copy()
    quiet[:, :, 1] *= says[:, :, 1, 0][..., None]
    probable, _ = label_model(quiet)
    alone = (quiet[:, :, 1].sum(2) == 0) & (quiet[:, :, 0, 0] == 1) & (quiet[:, :, 2, 0] == 1)
    assert probable[alone].mean() > 0.8
    denied = quiet.copy()
    denied[:, :, 1, 2] = 1 - quiet[:, :, 1, 0]
    assert label_model(denied)[0][alone].mean() < probable[alone].mean() - 0.05


def test_five_copies_of_a_labeller_have_one_voice():
    truth = truth_of(0.3)
    says = says_of(truth, [(0.8, 0.85), (0.9, 0.95), (0.9, 0.95)], coverage=1.0)
    copies = np.concatenate([says[:, :, :1]] * 5 + [says[:, :, 1:]], axis=2)
    one, five = label_model(says)[0], label_model(copies)[0]
    assert ((five > 0.5) != truth).mean() < 1.3 * ((one > 0.5) != truth).mean() + 0.005
    against = (says[:, :, 0, 0] == 1) & (says[:, :, 1, 2] == 1) & (says[:, :, 2, 2] == 1)
    assert against.sum() > 50
    assert five[against].mean() < 0.4, "two that are better outvote five that are one"


def votes(said):
    return [Vote(*row) for row in said]


def test_votes_become_states_and_probabilities():
    said = votes(
        [
            ("a", "nodule", "rules", "present", 0.95),
            ("a", "nodule", "classifier", "", 0.9),
            ("b", "nodule", "rules", "absent", 0.02),
            ("c", "nodule", "rules", "uncertain", 0.5),
            ("d", "effusion", "rules", "present", 0.9),
            ("elsewhere", "nodule", "rules", "present", 0.9),
        ]
    )
    found = combine(said, list("abcd"), ["nodule", "effusion"])
    assert found.states[:, 0].tolist() == [PRESENT, DENIED, POSSIBLE, UNMENTIONED]
    a, b, c, d = found.probabilities[:, 0]
    assert a > 0.9 > c > b
    assert np.isnan(d)
    coverage = {(x.concept, x.labeller): x.coverage for x in found.accuracies}
    assert coverage == {("nodule", "rules"): 0.75, ("nodule", "classifier"): 0.25, ("effusion", "rules"): 0.25}
    again = combine(said[::-1], list("abcd"), ["nodule", "effusion"])
    np.testing.assert_array_equal(again.probabilities, found.probabilities)


def test_functions_and_tables_of_the_user_vote(tmp_path):
    said = votes([("a", "nodule", "rules", "present", 0.9), ("b", "mass", "rules", "present", 0.9)])

    def masses_are_nodules(study, others):
        found = [vote.probability for vote in others if vote.concept == "mass"]
        return {"nodule": found[0]} if found else {}

    assert vote_by("mine", masses_are_nodules, said, ["a", "b"]) == [Vote("b", "nodule", "mine", "", 0.9)]
    with pytest.raises(BadVotes, match="between 0 and 1"):
        vote_by("mine", lambda study, others: {"nodule": 7.0}, said, ["a"])
    table = tmp_path / "votes.csv"
    table.write_text(
        "study,concept,labeller,value,probability\na,nodule,reader,absent,\nb,nodule,reader,,0.7\nc,nodule,reader,,\n"
    )
    assert read_votes(table) == [
        Vote("a", "nodule", "reader", "absent", 0.0),
        Vote("b", "nodule", "reader", "", 0.7),
    ]
    for content, message in [
        ("study,concept\n", "needs the columns"),
        ("study,concept,labeller,value\na,nodule,reader,perhaps\n", "line 2: the value"),
        ("study,concept,labeller,probability\na,nodule,reader,1.2\n", "line 2: a probability"),
    ]:
        table.write_text(content)
        with pytest.raises(BadVotes, match=message):
            read_votes(table)


def test_what_nobody_contradicts_is_not_overruled_by_a_rare_balance():
    """As in reports: rules that speak of nearly all, sections that say the same, a concept in one of fourteen studies,
    and another that is mentioned only where it is there, or denied by "all is normal"."""
    studies = [f"s{i}" for i in range(195)]
    votes = []
    for i, study in enumerate(studies):
        rare, seldom_said = i % 14 == 0, i % 5 == 0
        said = ("present", 0.95) if rare else ("absent", 0.0)
        votes += [Vote(study, "rare", labeller, *said) for labeller in ("rules", "findings")]
        if seldom_said:
            votes += [Vote(study, "seldom said", labeller, "present", 0.95) for labeller in ("rules", "findings")]
        elif i % 2:
            votes.append(Vote(study, "seldom said", "rules", "absent", 0.0))
    weak = combine(votes, studies, ["rare", "seldom said"])
    for column, there in ((0, np.arange(195) % 14 == 0), (1, np.arange(195) % 5 == 0)):
        spoken = np.isfinite(weak.probabilities[:, column])
        assert weak.probabilities[there & spoken, column].min() >= 0.75
        assert weak.probabilities[~there & spoken, column].max() <= 0.25
