"""Actors and semi-centralised critics (Eq. 10 to 14)."""

from matwm.actor_critic.networks import Actors, Critics
from matwm.actor_critic.returns import ReturnBounds

__all__ = ["Actors", "Critics", "ReturnBounds"]
