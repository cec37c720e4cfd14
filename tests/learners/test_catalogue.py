"""The list of methods."""

from leo_lightning import learners
from leo_lightning.learners.catalogue import methods
from leo_lightning.learners.general_leo import GeneralLEO
from leo_lightning.learners.learner import Learner


def test_it_says_what_the_classes_are():
    """Catches a method that is missing, and a property that is set in a way that the sources do not show."""
    kinds = {name: getattr(learners, name) for name in learners.__all__}
    kinds = {name: kind for name, kind in kinds.items() if issubclass(kind, Learner) and kind is not Learner}
    listed = {method.name: method for method in methods()}
    assert listed.keys() == kinds.keys()
    for name, kind in kinds.items():
        method, predicts = listed[name], None if kind is GeneralLEO else kind.predicts
        found = (method.predicts, method.trained, method.transductive)
        assert found == (predicts, kind.trained, kind.transductive), name
        assert method.summary == kind.__doc__.partition("\n")[0]
        assert method.summary.endswith(".")
