"""An imitation of the package SMAC (https://github.com/oxwhirl/smac): see `env`."""
