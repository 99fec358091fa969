"""Optimizers, one paper a file: each builds its pair from transformations, or writes the paper's step."""

from ._adabelief import BeliefState, adabelief, scale_by_belief
from ._adadelta import AdadeltaState, adadelta, scale_by_adadelta
from ._adafactor import Factored, FactoredState, adafactor, scale_by_factored_rms, scale_by_param_block_rms
from ._adagrad import RssState, adagrad, scale_by_rss
from ._adam import AdamState, adam, scale_by_adam
from ._adamax import AdamaxState, adamax, adamaxw, scale_by_adamax
from ._adamw import adamw
from ._adan import AdanState, adan, scale_by_adan
from ._ademamix import AdemamixState, ademamix, scale_by_ademamix
from ._adopt import AdoptState, adopt, scale_by_adopt
from ._amsgrad import AmsgradState, amsgrad, scale_by_amsgrad
from ._asgd import AsgdState, asgd
from ._cocob import CocobState, cocob, scale_by_cocob
from ._dadapt import DAdaptState, dadapt_adamw
from ._dog import DogState, dog, dowg, scale_by_dog, scale_by_dowg
from ._fromage import FromageState, fromage
from ._galore import GaloreState, galore, scale_by_galore
from ._kron import KronState, annealed_probability, kron, scale_by_kron
from ._lamb import lamb
from ._lars import lars
from ._lbfgs import LbfgsState, lbfgs, scale_by_lbfgs
from ._lion import LionState, lion, scale_by_lion
from ._lookahead import LookaheadState, lookahead
from ._madgrad import MadgradState, madgrad
from ._mechanic import MechanicState, mechanize
from ._momo import MomoAdamState, MomoState, momo, momo_adam
from ._muon import MuonState, muon, scale_by_muon, scale_by_shape
from ._nadam import NadamState, nadam, nadamw, scale_by_nadam
from ._noisy_sgd import noisy_sgd
from ._novograd import NovogradState, novograd, scale_by_novograd
from ._optimistic import OptimisticState, optimistic_adam, optimistic_gradient_descent, scale_by_optimistic_gradient
from ._polyak_sgd import polyak_sgd, scale_by_polyak
from ._prodigy import ProdigyState, prodigy
from ._radam import RadamState, radam, scale_by_radam
from ._rmsprop import RmsState, rmsprop, scale_by_rms, scale_by_stddev
from ._rprop import RpropState, rprop
from ._sam import SamState, sam
from ._schedule_free import (
    ScheduleFreeState,
    schedule_free,
    schedule_free_adamw,
    schedule_free_eval_params,
    schedule_free_sgd,
)
from ._sgd import SgdState, sgd
from ._sign import scale_by_sign, sign_sgd
from ._sm3 import Sm3State, scale_by_sm3, sm3
from ._soap import SoapState, scale_by_soap, soap
from ._sophia import SophiaState, hutchinson, scale_by_sophia, sophia
from ._yogi import YogiState, scale_by_yogi, yogi

__all__ = [
    "AdadeltaState",
    "AdamState",
    "AdamaxState",
    "AdanState",
    "AdemamixState",
    "AdoptState",
    "AmsgradState",
    "AsgdState",
    "BeliefState",
    "CocobState",
    "DAdaptState",
    "DogState",
    "Factored",
    "FactoredState",
    "FromageState",
    "GaloreState",
    "KronState",
    "LbfgsState",
    "LionState",
    "LookaheadState",
    "MadgradState",
    "MechanicState",
    "MomoAdamState",
    "MomoState",
    "MuonState",
    "NadamState",
    "NovogradState",
    "OptimisticState",
    "ProdigyState",
    "RadamState",
    "RmsState",
    "RpropState",
    "RssState",
    "SamState",
    "ScheduleFreeState",
    "SgdState",
    "Sm3State",
    "SoapState",
    "SophiaState",
    "YogiState",
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "adan",
    "ademamix",
    "adopt",
    "amsgrad",
    "annealed_probability",
    "asgd",
    "cocob",
    "dadapt_adamw",
    "dog",
    "dowg",
    "fromage",
    "galore",
    "hutchinson",
    "kron",
    "lamb",
    "lars",
    "lbfgs",
    "lion",
    "lookahead",
    "madgrad",
    "mechanize",
    "momo",
    "momo_adam",
    "muon",
    "nadam",
    "nadamw",
    "noisy_sgd",
    "novograd",
    "optimistic_adam",
    "optimistic_gradient_descent",
    "polyak_sgd",
    "prodigy",
    "radam",
    "rmsprop",
    "rprop",
    "sam",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_amsgrad",
    "scale_by_belief",
    "scale_by_cocob",
    "scale_by_dog",
    "scale_by_dowg",
    "scale_by_factored_rms",
    "scale_by_galore",
    "scale_by_kron",
    "scale_by_lbfgs",
    "scale_by_lion",
    "scale_by_muon",
    "scale_by_nadam",
    "scale_by_novograd",
    "scale_by_optimistic_gradient",
    "scale_by_param_block_rms",
    "scale_by_polyak",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_shape",
    "scale_by_sign",
    "scale_by_sm3",
    "scale_by_soap",
    "scale_by_sophia",
    "scale_by_stddev",
    "scale_by_yogi",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "schedule_free_sgd",
    "sgd",
    "sign_sgd",
    "sm3",
    "soap",
    "sophia",
    "yogi",
]
