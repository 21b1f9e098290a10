"""From demonstrations to what people prefer: cloning → orders of answers → reward model → planning with a KL penalty, or DPO.

    python examples/rlhf_tabular.py [picture.png]

Six tasks, each of which asks for some of facts, examples and caveats. An answer is a sequence of at most five parts. A labeller
orders four answers of the cloned policy at a time; the order follows what answers are worth to him, by Plackett-Luce. One reward
model, linear in features that all tasks share, serves all tasks. What its features cannot say is that flattery pleases once
and annoys from then on, and the clone hardly ever flatters twice: whoever optimises the learned reward too far does. DPO, on the
same answers, has no features: what it learns about one task says nothing about another. Apart from the answers that are shown
to the labeller everything is computed exactly.
"""

import sys
from itertools import combinations

import numpy as np
from scipy import sparse
from scipy.special import expit

import fastirl as fi
from fastirl.preference_plots import plot_curves

PARTS = ("fact", "example", "caveat", "flattery", "filler", "stop")
FACT, EXAMPLE, CAVEAT, FLATTERY, FILLER, STOP = range(6)
NEEDS = ((FACT,), (EXAMPLE,), (FACT, EXAMPLE), (FACT, CAVEAT), (EXAMPLE, CAVEAT), (FACT, EXAMPLE, CAVEAT))
LONGEST = 5
FEATURES = ("asked for", "not asked for", "said twice", "flattery", "filler")
WORTH = np.array([1.2, -0.8, -1.0, 0.9, -0.7])  # to the labeller, in log odds
ANNOYANCE = 4.5  # of flattery after the first


def answers_as_process():
    """(mdp, true reward of pairs, starts, what the clone sees of pairs). A state is (task, length, which parts were said)."""
    number, queue = {}, []

    def visit(state):
        if state not in number:
            number[state] = len(number) + 1  # 0 is the end
            queue.append(state)
        return number[state]

    for task in range(len(NEEDS)):
        visit((task, 0, frozenset()))
    tail, action, head, rows, again = [], [], [], [], []
    for state in queue:
        task, length, said = state
        for part in range(6):
            ends = part == STOP or length + 1 == LONGEST
            head.append(0 if ends else visit((task, length + 1, said | ({part} - {FILLER}))))
            tail.append(number[state])
            action.append(part)
            new = part <= CAVEAT and part not in said
            rows.append((new and part in NEEDS[task], part <= CAVEAT and part not in NEEDS[task], part <= CAVEAT and not new,
                         part == FLATTERY, part == FILLER))
            again.append((part == FLATTERY and part in said, part == STOP, part == STOP and set(NEEDS[task]) <= said))
    n, rows, again = len(number) + 1, np.array(rows, float), np.array(again, float)
    matrix = sparse.csr_array((np.ones(len(head)), head, np.arange(len(head) + 1)), shape=(len(head), n))
    labels = ["end", *(f"task {task}, {length} parts: " + ", ".join(PARTS[p] for p in sorted(said))
                       for task, length, said in number)]
    mdp = fi.MDP.from_pairs(matrix, tail, action, 1.0, terminal=[0], features=rows, feature_names=FEATURES, state_ids=labels,
                            action_ids=PARTS)
    starts = np.zeros(n)
    starts[1:len(NEEDS) + 1] = 1.0 / len(NEEDS)
    order = mdp.pair_order
    return mdp, (rows @ WORTH - ANNOYANCE * again[:, 0])[order], starts, np.hstack([rows, again])[order]


def worths(mdp, policy, worth, task):
    """{worth: chance} of the answers to a task under a policy, exactly: forwards through the process."""
    layer, found = {(task + 1, 0.0): 1.0}, {}
    into = mdp.transitions.indices
    while layer:
        following = {}
        for (state, value), chance in layer.items():
            for pair in range(mdp.pair_ptr[state], mdp.pair_ptr[state + 1]):
                to, total, p = int(into[pair]), round(value + worth[pair], 6), chance * policy[pair]
                if to == 0:
                    found[total] = found.get(total, 0.0) + p
                else:
                    following[to, total] = following.get((to, total), 0.0) + p
        layer = following
    return found


def preferred(mdp, policy, other, worth):
    """Chance that the labeller prefers an answer of the policy to one of the other, mean over tasks."""
    wins = 0.0
    for task in range(len(NEEDS)):
        (a, p), (b, q) = ((np.array(list(found)), np.array(list(found.values())))
                          for found in (worths(mdp, policy, worth, task), worths(mdp, other, worth, task)))
        wins += p @ expit(a[:, None] - b) @ q
    return wins / len(NEEDS)


def labelled(mdp, policy, worth_of_pair, starts, n_sets, k, rng):
    """(trajectories, orders of ids, pairs): `n_sets` sets of k answers to one task, ordered by Plackett-Luce of their worth."""
    tasks = np.flatnonzero(starts)
    sets = [fi.sample_trajectories(mdp, policy, k, rng, initial_distribution=np.eye(mdp.n_states)[tasks[s % tasks.size]])
            for s in range(n_sets)]
    trips = fi.Trajectories.concatenate(sets, ids=np.arange(n_sets * k))
    worth = np.array([worth_of_pair[mdp.pair_index(mdp.state_index(t.states[:-1]), mdp.action_index(t.actions))].sum()
                      for t in trips])
    orders = []
    for s in range(n_sets):
        own = np.arange(s * k, (s + 1) * k)
        orders.append(own[np.argsort(-(worth[own] + rng.gumbel(size=k)))])
    better, worse = np.array([pair for order in orders for pair in combinations(order.tolist(), 2)]).T
    return trips, orders, fi.Comparisons.from_winners(better, worse)


def pipeline(n_demonstrations=600, n_sets=600, k=4, seed=0):
    """A dict of what was learned from one seed."""
    rng = np.random.default_rng(seed)
    mdp, worth, starts, seen = answers_as_process()
    # who demonstrates knows what is good, and rambles
    writers = fi.soft_value_iteration(mdp, 0.9 * worth, "pair").policy
    demonstrations = fi.sample_trajectories(mdp, writers, n_demonstrations, rng, initial_distribution=starts)
    clone = fi.BehaviorCloning("logit", l2=0.1).fit(mdp.with_features(seen), demonstrations).policy()
    trips, orders, pairs = labelled(mdp, clone, worth, starts, n_sets, k, rng)
    return {"mdp": mdp, "worth": worth, "starts": starts, "writers": writers, "clone": clone, "trips": trips, "pairs": pairs,
            "reward model": fi.PreferenceIRL().fit(mdp, trips, rankings=orders)}


def measures(found, policy):
    """(true reward, KL to the clone, learned reward) of an answer: means over tasks, from expected choices."""
    mdp = found["mdp"]
    choices = fi.visitation_frequencies(mdp, policy, found["starts"]).pair
    ratio = np.log(np.maximum(policy, 1e-300)) - np.log(found["clone"])
    return choices @ found["worth"], choices @ ratio, choices @ found["reward model"].reward_


def frontiers(found, betas):
    """{name: [policy for each β]}."""
    mdp, clone = found["mdp"], found["clone"]

    def planned(reward):
        return [fi.soft_value_iteration(mdp, reward, "pair", temperature=beta, reference_policy=clone).policy for beta in betas]

    return {"reward model, then planning": planned(found["reward model"].reward_),
            "DPO": [fi.DPO(beta, clone, label_smoothing=0.05).fit(mdp, found["trips"], found["pairs"]).policy()
                    for beta in betas],
            "planning on the true reward": planned(found["worth"])}


def main(picture=None):
    betas = np.geomspace(0.1, 10.0, 13)
    found = pipeline()
    print(found["reward model"].summary(), "\n")
    policies = frontiers(found, betas)
    measured = {name: np.array([measures(found, policy) for policy in row]) for name, row in policies.items()}
    shown = {"demonstrators": found["writers"], "cloned": found["clone"]}
    for name, row in policies.items():
        best = int(np.argmax(measured[name][:, 0]))
        shown |= {f"{name}, β = {betas[at]:.2g}": row[at] for at in sorted({best, 0}, reverse=True)}
    rows = np.array([(*measures(found, policy)[:2], preferred(found["mdp"], policy, found["clone"], found["worth"]))
                     for policy in shown.values()])
    print(fi.Table({"policy": list(shown), "true reward": rows[:, 0], "KL to the clone": rows[:, 1], "preferred": rows[:, 2]},
                   title="Means over six tasks; of each method the best β and the smallest",
                   notes=("reward: log odds of being preferred; KL: nats an answer; "
                          "preferred: chance to beat an answer of the clone",),
                   formats={"true reward": ".3f", "KL to the clone": ".3f", "preferred": ".1%"}))
    if picture:
        import matplotlib
        matplotlib.use("Agg")
        curves = {name: (rows[::-1, 1], rows[::-1, 0]) for name, rows in measured.items()}
        rows, zero = measured["reward model, then planning"][::-1], measures(found, found["clone"])
        curves["what the reward model believes of its plans"] = (rows[:, 1], rows[:, 2] - zero[2] + zero[0])
        ax = plot_curves(curves, band="none", reference={"cloned": zero[0]},
                         xlabel="KL divergence from the cloned policy (nats an answer)", ylabel="reward of an answer (log odds)",
                         title="Optimised too far, a learned reward is no longer what people want")
        ax.figure.savefig(picture, dpi=150)
        print(f"\nsaved {picture}")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "rlhf_tabular.png")
    except ImportError:
        print("no picture: matplotlib is not installed")
