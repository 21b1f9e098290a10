"""Winners: textbook elections, brute force over all sets, laws, and an explicit word on pairs that nobody compared."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from scipy import sparse

from fastirl import (
    Comparisons, PairwiseMatrix, Rankings, WinnerResult, borda, condorcet_winner, copeland, schwartz_set, smith_set,
)
from fastirl.exceptions import InvalidInputError
from real_data import need

RULES = (condorcet_winner, copeland, borda, smith_set, schwartz_set)


def votes(name):
    return Rankings.read_preflib(need("ranking") / "textbook_votes" / f"{name}.soc")


def random_matrix(rng, n, ties=0.2):
    """(n, n) counts of a random tournament with ties; every pair met."""
    wins = rng.integers(1, 5, (n, n)).astype(float)
    tie = np.triu(rng.random((n, n)) < ties, 1)
    wins = np.where(tie | tie.T, 2.0, wins)
    np.fill_diagonal(wins, 0)
    return wins


def strict(wins):
    """Relation i beats j, as a boolean matrix."""
    return wins > wins.T


def smallest_dominating(beats):
    n = len(beats)
    for size in range(1, n + 1):
        found = [set(group) for group in combinations(range(n), size)
                 if all(beats[i, j] for i in group for j in range(n) if j not in group)]
        if found:
            assert len(found) == 1
            return found[0]


def union_of_minimal_unbeaten(beats):
    n, found = len(beats), []
    for size in range(1, n + 1):
        for group in combinations(range(n), size):
            free = not any(beats[j, i] for i in group for j in range(n) if j not in group)
            if free and not any(other < set(group) for other in found):
                found.append(set(group))
    return set().union(*found)


# --- elections of the textbooks --------------------------------------------------------------------


def test_tennessee():
    c = votes("tennessee")
    for rule in (condorcet_winner, copeland, borda):
        assert rule(c).winner == "Nashville"
    assert borda(c).score.tolist() == [126, 194, 173, 107]
    assert smith_set(c).winners == ("Nashville",) == schwartz_set(c).winners
    np.testing.assert_allclose(borda(c, "expected").score, np.array([126, 194, 173, 107]) / 300, rtol=1e-14)


def test_the_condorcet_winner_need_not_be_bordas():
    c = votes("cw_not_borda")
    assert condorcet_winner(c).winner == copeland(c).winner == "A"
    assert borda(c).winner == "B" and borda(c).score.tolist() == [6, 7, 2]
    assert borda(c, "expected").winner == "B"


def test_schulzes_example_has_no_condorcet_winner():
    c = votes("schulze45")
    found = condorcet_winner(c)
    assert not found and found.winner is None and found.winners == () and not condorcet_winner(c, weak=True)
    assert smith_set(c).winners == tuple("ABCDE") == schwartz_set(c).winners


def test_three_chess_players_beat_each_other_in_a_circle():
    text = (need("ranking") / "chess_trio" / "chess.txt").read_text().split("\n")
    names = text[0].split()
    wins = np.zeros((3, 3))
    for line in text[1:4]:
        cells = line.split()[1:]
        i, j = (at for at, cell in enumerate(cells) if cell != "NA")
        wins[i, j], wins[j, i] = float(cells[i]), float(cells[j])
    c = Comparisons.from_matrix(wins, names)
    assert not condorcet_winner(c) and copeland(c).score.tolist() == [1, 1, 1]
    assert smith_set(c).winners == schwartz_set(c).winners == ("Topalov", "Anand", "Karpov")
    assert copeland(c, "wins_minus_losses").score.tolist() == [0, 0, 0]
    share = Fraction(22, 35) + Fraction(8, 18)
    assert borda(c).score[0] == pytest.approx(float(share / 2), rel=1e-15)


def test_films_by_hand():
    c = Rankings.read_preflib(need("ranking") / "netflix4" / "netflix.soc")
    margins, points = np.zeros((4, 4)), np.zeros(4)
    for line in (need("ranking") / "netflix4" / "netflix.soc").read_text().splitlines():
        if line and not line.startswith("#"):
            count, order = line.split(":")
            order = [int(item) - 1 for item in order.split(",")]
            for at, i in enumerate(order):
                points[i] += int(count) * (3 - at)
                for j in order[at + 1:]:
                    margins[i, j] += int(count)
                    margins[j, i] -= int(count)
    np.testing.assert_array_equal(PairwiseMatrix.from_rankings(c).dense("margin"), margins)
    np.testing.assert_array_equal(borda(c).score, points)
    assert condorcet_winner(c).winner == c.labels[int(np.argmax((margins > 0).sum(axis=1)))] == "Beverly Hills Cop"


# --- brute force -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_against_all_sets_of_items(seed):
    rng = np.random.default_rng(seed)
    wins = random_matrix(rng, int(rng.integers(1, 8)), ties=rng.choice([0.0, 0.2, 0.6]))
    beats, n = strict(wins), len(wins)
    c = PairwiseMatrix.from_counts(wins)
    assert set(smith_set(c).winners) == smallest_dominating(beats)
    assert set(schwartz_set(c).winners) == union_of_minimal_unbeaten(beats) <= smallest_dominating(beats)
    ties = (wins == wins.T).sum(axis=1) - 1
    np.testing.assert_array_equal(copeland(c).score, beats.sum(axis=1) + 0.5 * ties)
    np.testing.assert_array_equal(copeland(c, "wins").score, beats.sum(axis=1))
    np.testing.assert_array_equal(copeland(c, score="wins_minus_losses").score, beats.sum(axis=1) - beats.sum(axis=0))
    assert condorcet_winner(c).winners == tuple(i for i in range(n) if beats[i].sum() == n - 1)
    assert condorcet_winner(c, weak=True).winners == tuple(i for i in range(n) if not beats[:, i].any())
    if n > 1:
        share = [sum(Fraction(wins[i, j]) / Fraction(wins[i, j] + wins[j, i]) for j in range(n) if j != i) / (n - 1)
                 for i in range(n)]
        np.testing.assert_allclose(borda(c).score, [float(item) for item in share], rtol=1e-14)
        assert borda(c).winners == tuple(i for i in range(n) if share[i] == max(share))


@pytest.mark.parametrize("seed", range(6))
def test_without_ties_schwartz_is_smith_and_conventions_agree(seed):
    c = PairwiseMatrix.from_counts(random_matrix(np.random.default_rng(seed), 7, ties=0.0) + np.triu(np.full((7, 7), 0.5), 1))
    assert not (c.sign == 0).any()
    assert schwartz_set(c).winners == smith_set(c).winners
    assert copeland(c).winners == copeland(c, "wins").winners == copeland(c, "wins_minus_losses").winners


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(5))
def test_relabelling_relabels_the_winners(rule, seed):
    rng = np.random.default_rng(seed)
    wins, order = random_matrix(rng, 6), rng.permutation(6)
    names = np.array(list("uvwxyz"))
    plain = rule(PairwiseMatrix.from_counts(wins))
    moved = rule(PairwiseMatrix.from_counts(wins[np.ix_(order, order)], names[order]))
    assert sorted(moved.winners) == sorted(names[list(plain.winners)])
    assert isinstance(moved, WinnerResult)


def test_rankings_and_their_pairs_say_the_same():
    rng = np.random.default_rng(1)
    lists = [[tuple(group) if len(group) > 1 else group[0]
              for group in np.split(rng.permutation(5), sorted(rng.choice(4, 2, False) + 1))]
             for _ in range(30)]
    lists = [[tuple(map(int, entry)) if isinstance(entry, tuple) else int(entry) for entry in order] for order in lists]
    rankings = Rankings.from_lists(lists, weight=rng.integers(0, 4, 30))
    first, second, outcome, weight = [], [], [], []
    for order, w in zip(lists, rankings.weight):
        groups = [entry if isinstance(entry, tuple) else (entry,) for entry in order]
        place = {item: at for at, group in enumerate(groups) for item in group}
        for i, j in combinations(range(5), 2):
            first.append(i)
            second.append(j)
            outcome.append(0.5 if place[i] == place[j] else float(place[i] < place[j]))
            weight.append(w)
    c = Comparisons.from_pairs(first, second, outcome, weight)
    for rule in RULES:
        assert rule(rankings).winners == rule(c).winners
    np.testing.assert_array_equal(PairwiseMatrix.from_rankings(rankings).dense("wins"),
                                  PairwiseMatrix.from_counts(c).dense("wins"))
    np.testing.assert_allclose(borda(rankings).score, borda(c).score * 4 * rankings.n_votes, rtol=1e-12)


def test_both_ways_of_listing_pairs_agree(monkeypatch):
    rng = np.random.default_rng(2)
    lists = [rng.permutation(200)[: rng.integers(2, 6)].tolist() for _ in range(500)]
    rankings = Rankings.from_lists(lists, labels=range(200), weight=rng.integers(1, 3, 500))
    import fastirl.winners as module
    monkeypatch.setattr(module, "_CHUNK", 50)
    listed = PairwiseMatrix.from_rankings(rankings)
    assert listed.n_pairs < 200 * 199 / 2
    wins = np.zeros((200, 200))
    for order, w in zip(lists, rankings.weight):
        for i, j in combinations(order, 2):
            wins[i, j] += w
    np.testing.assert_array_equal(listed.dense("wins"), wins)


# --- ties, unobserved pairs, scale -------------------------------------------------------------------


def test_ties_are_exact_on_counts():
    big = 2.0**50
    assert PairwiseMatrix.from_counts([[0, big], [big, 0]]).sign.tolist() == [0]
    assert PairwiseMatrix.from_counts([[0, big + 1], [big, 0]]).sign.tolist() == [1]
    c = Comparisons.from_pairs(["a"] * 3, ["b"] * 3, [1, 0, 0.5], weight=[0.1 + 0.2, 0.3, 1])
    assert not condorcet_winner(c) and copeland(c).score.tolist() == [0.5, 0.5]
    half = Comparisons.from_pairs(["a", "a"], ["b", "b"], [0.5, 1])
    assert condorcet_winner(half).winner == "a"


def test_probabilities_are_read_as_they_stand():
    c = PairwiseMatrix.from_probabilities([[0.5, 0.6, 0.5], [0.4, 0.5, 0.9], [0.5, 0.1, 0.5]], ["x", "y", "z"])
    assert c.sign.tolist() == [1, 0, 1]
    assert not condorcet_winner(c) and condorcet_winner(c, weak=True).winner == "x"
    np.testing.assert_allclose(borda(c).score, [0.55, 0.65, 0.3], rtol=1e-14)
    some = sparse.coo_array(([0.6, 0.1], ([0, 2], [1, 1])), shape=(3, 3))
    assert PairwiseMatrix.from_probabilities(some).wins_first.tolist() == [0.6, 0.9]
    np.testing.assert_allclose(c.dense(), [[0.5, 0.6, 0.5], [0.4, 0.5, 0.9], [0.5, 0.1, 0.5]], rtol=1e-15)


def test_frames_bring_their_labels():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([[0.5, 0.2], [0.8, 0.5]], index=["x", "y"], columns=["x", "y"])
    assert condorcet_winner(PairwiseMatrix.from_probabilities(frame)).winner == "y"
    with pytest.raises(InvalidInputError, match="reindex"):
        PairwiseMatrix.from_probabilities(frame[["y", "x"]])


def test_unobserved_pairs_are_a_decision():
    c = Comparisons.from_winners(["a", "a", "b"], ["b", "c", "d"], labels=list("abcd"))
    for rule in RULES:
        with pytest.raises(InvalidInputError, match=r"'a' and 'd' were not compared \(3 such pairs\); pass unobserved"):
            rule(c)
    assert not condorcet_winner(c, unobserved="tie") and condorcet_winner(c, unobserved="ignore").winner == "a"
    assert condorcet_winner(c, weak=True, unobserved="tie").winners == ("a",)
    assert copeland(c, unobserved="tie").score.tolist() == [2.5, 1.5, 1.0, 1.0]
    assert copeland(c, unobserved="ignore").score.tolist() == [2, 1, 0, 0]
    assert copeland(c, "wins", "tie").score.tolist() == [2, 1, 0, 0]
    np.testing.assert_allclose(borda(c, unobserved="tie").score, [2.5 / 3, 0.5, 1 / 3, 1 / 3])
    np.testing.assert_allclose(borda(c, unobserved="ignore").score, [1, 0.5, 0, 0])
    assert smith_set(c, unobserved="tie").winners == tuple("abcd") and schwartz_set(c, unobserved="tie").winners == ("a",)
    assert copeland(c, unobserved="ignore").unobserved.tolist() == [1, 1, 2, 2]
    lonely = Comparisons.from_winners(["a"], ["b"], labels=["a", "b", "c"])
    with pytest.raises(InvalidInputError, match="'c' met nobody"):
        borda(lonely, unobserved="ignore")
    assert condorcet_winner(lonely, unobserved="ignore").winners == ("a",)
    assert condorcet_winner(lonely, weak=True, unobserved="ignore").winners == ("a",)


@pytest.mark.parametrize("missing", list(combinations(range(5), 2)))
def test_the_first_unobserved_pair_is_named(missing):
    wins = np.ones((5, 5)) - np.eye(5)
    wins[missing], wins[missing[::-1]] = 0, 0
    with pytest.raises(InvalidInputError, match=rf"{missing[0]} and {missing[1]} were not compared \(1 such"):
        copeland(PairwiseMatrix.from_counts(wins))


def test_a_million_items_and_three_comparisons():
    c = Comparisons.from_winners([0, 1, 2], [1, 2, 0], labels=range(1_000_000))
    with pytest.raises(InvalidInputError, match="0 and 3 were not compared"):
        condorcet_winner(c)
    assert len(smith_set(c, unobserved="tie").winners) == 1_000_000
    assert len(schwartz_set(c, unobserved="tie").winners) == 1_000_000
    assert copeland(c, "wins", unobserved="ignore").winners == (0, 1, 2)


def test_one_item_wins_everything():
    c = PairwiseMatrix.from_probabilities([[0.5]], ["only"])
    for rule in RULES:
        assert rule(c).winner == "only"


def test_borda_by_places_shares_them_among_ties_and_what_is_below():
    c = Rankings.from_lists([["a", ("b", "c"), "d"], ["d"]], below="all", labels=list("abcd"))
    assert borda(c).score.tolist() == [4, 2.5, 2.5, 3]
    with pytest.raises(InvalidInputError, match="leave items out"):
        borda(Rankings.from_lists([["a", "b", "c"], ["a", "b"]]), scoring="positional")


def test_what_is_printed():
    c = votes("cw_not_borda")
    assert "*" in str(borda(c)) and borda(c).table()["item"].tolist() == ["B", "A", "C"]
    assert repr(condorcet_winner(c)) == "WinnerResult(Condorcet winner (strict): 'A')"
    assert "no winner" in repr(condorcet_winner(votes("schulze45")))


@pytest.mark.parametrize("call, message", [
    (lambda: copeland([["a", "b"]]), "got list"),
    (lambda: copeland(np.eye(2)), "got ndarray"),
    (lambda: copeland(Comparisons.from_winners(["a"], ["b"]), score="ties"), "`score`"),
    (lambda: copeland(Comparisons.from_winners(["a"], ["b"]), unobserved="half"), "`unobserved`"),
    (lambda: borda(Comparisons.from_winners(["a"], ["b"]), scoring="positional"), "got Comparisons"),
    (lambda: borda(Comparisons.from_winners(["a"], ["b"]), scoring="points"), "`scoring`"),
    (lambda: copeland(Comparisons.from_winners([], [])), "at least one item"),
    (lambda: PairwiseMatrix.from_probabilities([[0.5, 0.7], [0.4, 0.5]]), r"must be 1: for 0 and 1 it is 1.1"),
    (lambda: PairwiseMatrix.from_probabilities([[0.5, 1.7], [-0.7, 0.5]]), "between 0 and 1: for 0 and 1 it is 1.7"),
    (lambda: PairwiseMatrix.from_probabilities([[0.5, np.nan], [0.3, 0.5]]), "finite"),
    (lambda: PairwiseMatrix.from_probabilities([[0.5, 0.5]]), "square"),
    (lambda: PairwiseMatrix.from_probabilities([[0.5, 0.7], [0.3, 0.5]], ["a", "a"]), "unique"),
    (lambda: PairwiseMatrix.from_counts([[0, -1], [1, 0]]), "negative"),
    (lambda: PairwiseMatrix.from_counts(Comparisons.from_winners(["a"], ["b"]), ["a", "b"]), "leave them out"),
    (lambda: PairwiseMatrix.from_rankings([["a", "b"]]), "from_lists"),
    (lambda: PairwiseMatrix.from_counts([[0, 1, 0], [0, 0, 1], [0, 0, 0]]).dense(), "not compared"),
    (lambda: PairwiseMatrix.from_counts([[0, 1], [0, 0]]).dense("counts"), "`kind`"),
])
def test_wrong_calls_are_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()
