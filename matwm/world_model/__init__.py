"""The shared world model (section 1.2 and 1.3 of the method)."""

from matwm.world_model.model import FocalState, WorldModel

__all__ = ["FocalState", "WorldModel"]
