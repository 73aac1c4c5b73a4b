"""An imitation of the package Melting Pot, for where it is not installed: see `substrate`."""
