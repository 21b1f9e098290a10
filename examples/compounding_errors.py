"""Compounding errors: cloning's regret grows with the square of the horizon, DAgger's in proportion to it.

    python examples/compounding_errors.py [picture.png]

Left: the tightrope of Ross and Bagnell (2010). Both learners get as many answers of the expert a step, and regret is computed
exactly. Right: a race-track; how many steps a race takes, against how many answers the learner was given.
"""

import sys

import numpy as np

import fastirl as fi
from fastirl.domains import racetrack, worst_case_chain
from fastirl.preference_plots import plot_curves

LENGTHS = (8, 16, 32, 64, 128)
ITERATIONS, ROLLOUTS = 10, 20
PENALTY = 2e-4  # an answer: so that the chance of a slip does not depend on the length


def cost(world, policy):
    """Expected cost until the process ends."""
    return -float(world.initial_distribution @ fi.policy_evaluation(world.mdp, policy, world.reward, "state").value)


def chain_regrets(lengths=LENGTHS, seed=0):
    """{learner: (n_lengths,) regret} on the tightrope; the expert's cost is 0."""
    found = {"cloning": [], "DAgger": []}
    for length in lengths:
        world = worst_case_chain(length)
        expert = fi.value_iteration(world.mdp, world.reward, "state")
        rng = np.random.default_rng(seed)
        answers = ITERATIONS * ROLLOUTS
        logit = fi.BehaviorCloning("logit", l2=PENALTY * answers * length)
        demonstrations = fi.sample_trajectories(world.mdp, expert.policy, answers, rng,
                                                initial_distribution=world.initial_distribution)
        dagger = fi.DAgger(expert, logit, n_iterations=ITERATIONS, rollouts=ROLLOUTS, rng=rng,
                           initial_distribution=world.initial_distribution)
        found["cloning"].append(cost(world, logit.fit(world.mdp, demonstrations).policy()))
        found["DAgger"].append(cost(world, dagger.fit(world.mdp).policy()))
    return {name: np.array(values) for name, values in found.items()}


def exponent(lengths, regret):
    """b of regret ≈ a length^b, by least squares on logarithms."""
    return float(np.polyfit(np.log(lengths), np.log(regret), 1)[0])


def race_steps(n_seeds=5, limit=100, n_iterations=8, rollouts=10):
    """(answers, {learner: (n_seeds, n) mean steps}, the expert's): a race that is not done after `limit` steps counts as that."""
    world = racetrack(crash="stop")
    mdp, start = world.mdp, world.initial_distribution
    expert = fi.value_iteration(mdp, world.reward, "state")

    def steps(policy):
        by_time = fi.visitation_frequencies(mdp, policy, start, horizon=limit).state_by_time
        return float(by_time[:limit, ~mdp.terminal].sum())

    found = {"cloning": [], "DAgger": []}
    answers = []
    for seed in range(n_seeds):
        rng = np.random.default_rng(seed)
        rows = {name: [] for name in found}
        for n in range(1, n_iterations + 1):
            # the smaller the smoothing the longer an unknown state holds a racer up; the table has no other way to be unsure
            dagger = fi.DAgger(expert, fi.BehaviorCloning(smoothing=0.01), n_iterations=n, rollouts=rollouts, max_steps=limit,
                               select="last", rng=np.random.default_rng([seed, 1]), initial_distribution=start).fit(mdp)
            rows["DAgger"].append(steps(dagger.policy()))
            answers.append((n, dagger.n_queries_))
            demonstrations, count = [], 0
            while count < dagger.n_queries_:
                one = fi.sample_trajectories(mdp, expert.policy, 1, rng, initial_distribution=start)
                demonstrations.append(one)
                count += len(one.actions)
            demonstrations = fi.Trajectories.concatenate(demonstrations, ids=np.arange(len(demonstrations)))
            rows["cloning"].append(steps(fi.BehaviorCloning(smoothing=0.01).fit(mdp, demonstrations).policy()))
        for name in found:
            found[name].append(rows[name])
    places = [np.mean([count for at, count in answers if at == n]) for n in range(1, n_iterations + 1)]
    return np.array(places), {name: np.array(rows) for name, rows in found.items()}, steps(expert.policy)


def draw(path, regrets, race):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 4.8), layout="constrained")
    curves = {f"{name}: regret ∝ T^{exponent(LENGTHS, regret):.2f}": (LENGTHS, regret) for name, regret in regrets.items()}
    plot_curves(curves, left, xlabel="length T of the tightrope", ylabel="regret (steps off the track)", log="xy",
                                    title="Worst-case chain: the same number of answers a step")
    left.set_xticks(LENGTHS, LENGTHS)
    left.minorticks_off()
    answers, rows, best = race
    plot_curves({name: (answers, runs) for name, runs in rows.items()}, right, reference={"the expert": best},
                                    xlabel="answers of the expert", ylabel="steps a race (100 where it is not done by then)",
                                    title="Race-track: a table of counts")
    figure.savefig(path, dpi=150)


def main(path="compounding_errors.png"):
    regrets = chain_regrets()
    for name, regret in regrets.items():
        print(f"{name:8} regret at T = {LENGTHS}: {np.round(regret, 4)}, exponent {exponent(LENGTHS, regret):.3f}")
    race = race_steps()
    for name, runs in race[1].items():
        print(f"{name:8} steps a race after {np.round(race[0])} answers: {np.round(runs.mean(axis=0), 1)} (expert {race[2]:.1f})")
    try:
        draw(path, regrets, race)
        print(f"saved {path}")
    except ImportError:
        print("no picture: matplotlib is not installed")


if __name__ == "__main__":
    main(*sys.argv[1:2])
