"""The shared world model (Eq. 1 to 9)."""

from matwm.world_model.model import FocalState, WorldModel

__all__ = ["FocalState", "WorldModel"]
