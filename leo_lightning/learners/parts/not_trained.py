"""What methods without parameters share."""

from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Learner, Outcome
from leo_lightning.learners.parts.objectives import query_cross_entropy


class NotTrained(Learner):
    """A method that learns from the support alone, and that nothing is trained for beforehand."""

    trained = False
    unequal_shots = True

    def outcome(self, episode: Episode, noise: None) -> Outcome:
        """See `Learner.outcome`."""
        logits = self.adapt(episode.support)(episode.query)
        loss = query_cross_entropy(logits, episode.valid).mean()
        return Outcome(loss, {"cross_entropy": loss}, logits, {})
