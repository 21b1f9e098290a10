"""fastirl: learn what people want from what they do, in tabular domains as large as a country's roads."""

from importlib.metadata import PackageNotFoundError, version

from . import exceptions
from .active_queries import (
    ActiveLearning, PromptLabeller, QueryChoice, SimulatedLabeller, ask_and_learn, choose_query, query_values,
)
from .adversarial import AIRL, GAIL
from .apprenticeship import ApprenticeshipLearning, MaximumMarginPlanning
from .bayesian import BayesianIRL
from .bradley_terry import BradleyTerryResult, bootstrap_strengths, bradley_terry
from .cloning import BehaviorCloning
from .compare import CrossValidation, LearnerComparison, ShortestPath, compare_learners, cross_validate
from .comparisons import Comparisons
from .dagger import DAgger
from .dpo import DPO
from .dueling_bandits import (
    BeatTheMean, CopelandConfidenceBound, DoubleThompsonSampling, DuelingBandit, DuelSimulation, RandomDuels, RUCB,
    simulate_duels,
)
from .exceptions import *  # noqa: F403
from .interactive import InteractiveQLearning
from .identification import RewardAmbiguity, reward_ambiguity
from .maxent import MaxEntIRL
from .mdp import MDP
from .plackett_luce import PlackettLuceResult, plackett_luce
from .planning import policy_evaluation, sample_trajectories, soft_value_iteration, value_iteration, visitation_frequencies
from .process_likelihood import process_log_likelihood
from .rankings import Rankings
from .receding_horizon import RecedingHorizonIRL
from .relative_entropy import RelativeEntropyIRL
from .rewards import FreeReward, LinearReward, SumReward, TorchReward
from .road_network import RoadNetwork
from .route_choice import (
    choice_probabilities, expected_flows, predict_routes, route_log_likelihood, route_values, sample_routes,
)
from .tables import Table
from .tamer import TAMER
from .tntp import read_tntp
from .trainers import SimulatedTrainer
from .trajectories import Trajectories
from .trajectory_preferences import PreferenceIRL
from .turns import arcs_from_links, expand_two_way, turn_bans_from_osm
from .winners import PairwiseMatrix, WinnerResult, borda, condorcet_winner, copeland, schwartz_set, smith_set

try:
    __version__ = version("fastirl")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    # inputs
    "Comparisons", "PairwiseMatrix", "Rankings", "Trajectories", "arcs_from_links", "expand_two_way", "read_tntp",
    "turn_bans_from_osm",
    # models and rewards
    "FreeReward", "LinearReward", "MDP", "RewardAmbiguity", "RoadNetwork", "SumReward", "TorchReward", "reward_ambiguity",
    # solve: routes, decision processes
    "choice_probabilities", "expected_flows", "policy_evaluation", "predict_routes", "process_log_likelihood",
    "route_log_likelihood", "route_values", "sample_routes", "sample_trajectories", "soft_value_iteration", "value_iteration",
    "visitation_frequencies",
    # learn from demonstrations
    "AIRL", "ApprenticeshipLearning", "BayesianIRL", "BehaviorCloning", "DAgger", "GAIL", "MaxEntIRL", "MaximumMarginPlanning",
    "RecedingHorizonIRL", "RelativeEntropyIRL", "ShortestPath",
    # learn from preferences: strengths, winners
    "BradleyTerryResult", "PlackettLuceResult", "WinnerResult", "bootstrap_strengths", "borda", "bradley_terry",
    "condorcet_winner", "copeland", "plackett_luce", "schwartz_set", "smith_set",
    # rewards and behaviour from preferences and feedback
    "DPO", "InteractiveQLearning", "PreferenceIRL", "SimulatedTrainer", "TAMER",
    # which question next
    "ActiveLearning", "BeatTheMean", "CopelandConfidenceBound", "DoubleThompsonSampling", "DuelSimulation", "DuelingBandit",
    "PromptLabeller", "QueryChoice", "RUCB", "RandomDuels", "SimulatedLabeller", "ask_and_learn", "choose_query", "query_values",
    "simulate_duels",
    # present
    "CrossValidation", "LearnerComparison", "Table", "compare_learners", "cross_validate",
    *exceptions.__all__,
]
