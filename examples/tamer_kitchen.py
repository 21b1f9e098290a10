"""A person teaches: rewards and guidance beside the environment's own, in a kitchen; late feedback, credited rightly or not.

    python examples/tamer_kitchen.py [picture.png]

Left: baking a cake in a compact form of Sophie's Kitchen (Thomaz and Breazeal 2006). A simulated person judges one step in
twenty, and names the object to work on next before every second one. Middle: what the person said, brought into Q-learning in
the ways of Knox and Stone (2010). Right: TAMER's model of a person whose feedback comes 0.2 to 0.8 s late, steps taking 0.4 s.
"""

import sys

import numpy as np

import fastirl as fi
from fastirl.domains import kitchen
from fastirl.preference_plots import plot_curves

EPISODES, SEEDS = 150, 12
TEACHERS = {"alone": (0.0, 0.0), "feedback": (0.05, 0.0), "guidance": (0.0, 0.5), "feedback and guidance": (0.05, 0.5)}
COMBINATIONS = ("signal", "reward", "action_bias", "control_sharing", "q_augmentation", "potential")


def cakes(cake, kind, rate, guidance, seed):
    """(n_episodes,) 1 where a cake was baked."""
    trainer = fi.SimulatedTrainer.of_reward(cake.mdp, cake.reward, rate=rate, guidance_rate=guidance, objects=cake.objects)
    learner = fi.InteractiveQLearning(kind).fit(
        cake.mdp, trainer, reward=cake.reward, reward_on="pair", n_episodes=EPISODES, max_steps=300,
        initial_distribution=cake.initial_distribution, rng=np.random.default_rng(seed))
    return (learner.return_ > 0).astype(float)


def share(baked, width=15):
    """(places, (n_seeds, n) share of cakes) in blocks of episodes."""
    blocks = baked.reshape(len(baked), -1, width).mean(axis=2)
    return width * np.arange(1, blocks.shape[1] + 1), blocks


def errors_of_judgement(counts=(25, 50, 100, 200, 400, 800), n_seeds=SEEDS):
    """{name: (n_seeds, n_counts) root mean square error of H} against the number of steps that were watched."""
    found = {"delay of 0.2 to 0.8 s": [], "feedback taken as prompt": []}
    for seed in range(n_seeds):
        rng = np.random.default_rng(seed)
        mdp = fi.MDP(rng.dirichlet(np.ones(6), (6, 3)), 0.9)
        truth = rng.normal(size=mdp.n_pairs)
        trip = fi.sample_trajectories(mdp, None, 1, rng, horizon=max(counts), initial_distribution=np.full(6, 1 / 6))[0]
        pairs = mdp.pair_index(trip.states[:-1], trip.actions)
        clock = 0.4 * np.arange(max(counts) + 1)
        said = fi.SimulatedTrainer(mdp, truth, rate=2.5, noise=0.2).feedback(clock, pairs, rng)
        for name, delay in zip(found, (("uniform", 0.2, 0.8), ("uniform", 0.0, 1e-6))):
            row = []
            for n in counts:
                seen = fi.Trajectories.from_sequences([trip.states[:n + 1]], [trip.actions[:n]])
                heard = said[said[:, 0] < clock[n]]
                model = fi.TAMER(delay, uncredited="drop").fit(mdp, seen, [clock[:n + 1]], [heard])
                row.append(np.sqrt(np.mean((model.human_reward_ - truth) ** 2)))
            found[name].append(row)
    return np.array(counts), {name: np.array(rows) for name, rows in found.items()}


def main(picture=None):
    cake = kitchen()
    taught = {name: np.array([cakes(cake, "signal", *teacher, seed) for seed in range(SEEDS)])
              for name, teacher in TEACHERS.items()}
    combined = {kind: np.array([cakes(cake, kind, 0.3, 0.0, seed) for seed in range(SEEDS)]) for kind in COMBINATIONS}
    counts, errors = errors_of_judgement()

    def first(baked):
        return np.mean(np.argmax(np.c_[baked, np.ones(len(baked))] > 0, axis=1) + 1.0)

    rows = [*taught.items(), *((f"judged in 3 of 10 steps, {kind}", baked) for kind, baked in combined.items())]
    print(fi.Table({"teacher": [name for name, _ in rows],
                    "cakes": [baked.sum(axis=1).mean() for _, baked in rows],
                    "in the last 15": [baked[:, -15:].mean() for _, baked in rows],
                    "first cake": [first(baked) for _, baked in rows]},
                   title=f"{EPISODES} episodes, means of {SEEDS} learners",
                   formats={"cakes": ".1f", "in the last 15": ".0%", "first cake": ".0f"},
                   notes=(f"first cake: its episode, {EPISODES + 1} where there was none",)))
    last = {name: round(float(rows[:, -1].mean()), 3) for name, rows in errors.items()}
    print("\nerror of H after", counts[-1], "steps:", last)
    if picture:
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
        for ax, runs, title in ((left, taught, "Feedback and guidance in the kitchen"),
                                (middle, combined, "One judge, six combinations")):
            plot_curves({name: share(baked) for name, baked in runs.items()}, ax, xlabel="episodes",
                        ylabel="share of episodes that end with a cake", title=title)
            ax.set_ylim(-0.03, 1.5)  # room for the legend
            ax.set_yticks(np.linspace(0, 1, 6))
        plot_curves({name: (counts, rows) for name, rows in errors.items()}, right, xlabel="steps watched", log="x",
                    ylabel="root mean square error of H", title="What late feedback is about")
        right.set_xticks(counts, counts)
        right.minorticks_off()
        figure.savefig(picture, dpi=130)
        print(f"saved {picture}")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "tamer_kitchen.png")
    except ImportError:
        print("no picture: matplotlib is not installed")
