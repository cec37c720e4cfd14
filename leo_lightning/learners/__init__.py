"""The few-shot methods, one file for each; what they share is in `parts`.

`from leo_lightning.learners import LEO` imports LEO alone, and what it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leo_lightning.learners.anil import ANIL
    from leo_lightning.learners.baseline_plus_plus import BaselinePlusPlus
    from leo_lightning.learners.bdcspn import BDCSPN
    from leo_lightning.learners.centroid import NearestCentroid
    from leo_lightning.learners.centroid_leo import CentroidLEO
    from leo_lightning.learners.dynamic_few_shot import DynamicFewShot
    from leo_lightning.learners.feat import FEAT
    from leo_lightning.learners.gaussian_process import GaussianProcess
    from leo_lightning.learners.general_leo import GeneralLEO
    from leo_lightning.learners.imaml import IMAML
    from leo_lightning.learners.knn import NearestNeighbors
    from leo_lightning.learners.label_propagation import LabelPropagation
    from leo_lightning.learners.laplacian_shot import LaplacianShot
    from leo_lightning.learners.learn2learn_methods import Learn2LearnMAML, Learn2LearnMetaSGD
    from leo_lightning.learners.learner import Learner
    from leo_lightning.learners.leo import LEO
    from leo_lightning.learners.linear_svm import LinearSVM
    from leo_lightning.learners.logistic_regression import LogisticRegression
    from leo_lightning.learners.maml import MAML
    from leo_lightning.learners.maml_regression import MAMLRegression
    from leo_lightning.learners.matching import MatchingNetworks
    from leo_lightning.learners.meta_lstm import MetaLSTM
    from leo_lightning.learners.meta_sgd import MetaSGD
    from leo_lightning.learners.metaoptnet import MetaOptNet
    from leo_lightning.learners.predicted_parameters import PredictedParameters
    from leo_lightning.learners.proto_maml import ProtoMAML
    from leo_lightning.learners.prototypical import PrototypicalNetworks
    from leo_lightning.learners.pt_map import PTMAP
    from leo_lightning.learners.r2d2 import R2D2
    from leo_lightning.learners.reference.leo import ReferenceLEO
    from leo_lightning.learners.relation import RelationNetworks
    from leo_lightning.learners.reptile import Reptile
    from leo_lightning.learners.siamese import SiameseNetworks
    from leo_lightning.learners.snail import SNAIL
    from leo_lightning.learners.tim import TIM
    from leo_lightning.learners.tpn import TPN
    from leo_lightning.learners.transductive_finetuning import TransductiveFinetuning

__all__ = [
    "ANIL", "BDCSPN", "FEAT", "IMAML", "LEO", "MAML", "PTMAP", "R2D2", "SNAIL", "TIM", "TPN",
    "BaselinePlusPlus", "CentroidLEO", "DynamicFewShot", "GaussianProcess", "GeneralLEO", "LabelPropagation",
    "LaplacianShot", "Learn2LearnMAML", "Learn2LearnMetaSGD", "Learner", "LinearSVM", "LogisticRegression",
    "MAMLRegression", "MatchingNetworks", "MetaLSTM", "MetaOptNet", "MetaSGD", "NearestCentroid",
    "NearestNeighbors", "PredictedParameters", "ProtoMAML", "PrototypicalNetworks", "ReferenceLEO",
    "RelationNetworks", "Reptile", "SiameseNetworks", "TransductiveFinetuning",
]  # fmt: skip
_MODULES = {
    "ANIL": "anil", "BDCSPN": "bdcspn", "FEAT": "feat", "IMAML": "imaml", "LEO": "leo", "MAML": "maml",
    "PTMAP": "pt_map", "R2D2": "r2d2", "SNAIL": "snail", "TIM": "tim", "TPN": "tpn",
    "BaselinePlusPlus": "baseline_plus_plus", "CentroidLEO": "centroid_leo",
    "DynamicFewShot": "dynamic_few_shot", "GaussianProcess": "gaussian_process", "GeneralLEO": "general_leo",
    "LabelPropagation": "label_propagation", "LaplacianShot": "laplacian_shot",
    "Learn2LearnMAML": "learn2learn_methods", "Learn2LearnMetaSGD": "learn2learn_methods",
    "Learner": "learner", "LinearSVM": "linear_svm", "LogisticRegression": "logistic_regression",
    "MAMLRegression": "maml_regression", "MatchingNetworks": "matching", "MetaLSTM": "meta_lstm",
    "MetaOptNet": "metaoptnet", "MetaSGD": "meta_sgd", "NearestCentroid": "centroid",
    "NearestNeighbors": "knn", "PredictedParameters": "predicted_parameters", "ProtoMAML": "proto_maml",
    "PrototypicalNetworks": "prototypical", "ReferenceLEO": "reference.leo", "RelationNetworks": "relation",
    "Reptile": "reptile", "SiameseNetworks": "siamese", "TransductiveFinetuning": "transductive_finetuning",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Return the names that tab completion offers, imported or not."""
    return sorted({*globals(), *__all__})
