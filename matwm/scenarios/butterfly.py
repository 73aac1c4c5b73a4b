"""The scenarios of PettingZoo 1.27's Butterfly; a test compares options and defaults with the package."""

from collections.abc import Mapping

from matwm.scenarios.option import Option, Scenario, count


def _max_cycles(default: int) -> dict[str, Option]:
    return {"max_cycles": count(default, "environment steps an episode", high=None)}


def _number(default: float, meaning: str, low: float | None = None, high: float | None = None) -> Option:
    return Option(default, "float", meaning, low, high)


SCENARIOS: Mapping[str, Scenario] = {
    "cooperative_pong_v6": Scenario(
        {
            "ball_speed": _number(9.0, "pixels a step", 1, 100),
            "left_paddle_speed": _number(12.0, "pixels a step", 1, 100),
            "right_paddle_speed": _number(12.0, "pixels a step", 1, 100),
            "cake_paddle": Option(True, "bool", "the right paddle has steps like a cake"),
            **_max_cycles(900),
            "bounce_randomness": Option(False, "bool", "the ball leaves a paddle at a random angle"),
            "max_reward": _number(100.0, "return of an episode that reaches its time limit"),
            "off_screen_penalty": _number(-10.0, "reward when the ball is lost"),
            "render_ratio": count(2, "screen pixels a pixel of the picture", high=8),
        },
        (2,),
    ),
    "pistonball_v6": Scenario(
        {
            # The ball of the package starts at the wall that it is to reach where there are fewer.
            "n_pistons": count(20, "agents", low=4),
            "time_penalty": _number(-0.1, "reward of each step"),
            "random_drop": Option(True, "bool", "the ball starts anywhere"),
            "random_rotate": Option(True, "bool", "the ball starts spinning"),
            "ball_mass": _number(0.75, "mass of the ball", 0.01, 100),
            "ball_friction": _number(0.3, "friction of the ball", 0, 10),
            "ball_elasticity": _number(1.5, "elasticity of the ball", 0, 10),
            **_max_cycles(125),
        },
        ("n_pistons",),
    ),
    "knights_archers_zombies_v11": Scenario(
        {
            "spawn_delay": count(20, "steps between new zombies", high=10_000),
            "num_archers": count(2, "agents that shoot", low=0, high=10),
            "num_knights": count(2, "agents that strike", low=0, high=10),
            "max_zombies": count(10, "zombies at a time"),
            "max_arrows": count(10, "arrows at a time"),
            "killable_knights": Option(True, "bool", "zombies kill knights"),
            "killable_archers": Option(True, "bool", "zombies kill archers"),
            "line_death": Option(False, "bool", "agents die at the upper and lower edge"),
            **_max_cycles(900),
            # Its fourth, vector-sequence, changes length from step to step.
            "obs_method": Option("vector", "word", "what agents see", words=("vector", "vector-masked", "image")),
        },
        ("num_archers", "num_knights"),
    ),
}
"""By name; actions are discrete throughout."""
