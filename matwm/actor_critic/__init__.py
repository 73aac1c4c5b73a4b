"""Actors and semi-centralised critics (section 1.4 and 1.6 of the method)."""

from matwm.actor_critic.networks import Actors, Critics
from matwm.actor_critic.returns import ReturnBounds

__all__ = ["Actors", "Critics", "ReturnBounds"]
