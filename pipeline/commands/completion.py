"""`matwm completion SHELL`: prints what lets a shell complete commands and their options."""

import argparse
import sys

import shtab

from pipeline import commands


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "shell", choices=shtab.SUPPORTED_SHELLS, help="keep what is printed where the shell finds it: completing needs no Python"
    )


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    whole = argparse.ArgumentParser(prog="matwm", allow_abbrev=False)
    whole.add_argument("--version", action="store_true", help="print the version")
    each = whole.add_subparsers(dest="command")
    each.add_parser("help", help="list the commands")
    for name, command in commands.COMMANDS.items():
        commands.module_of(name).arguments(each.add_parser(name, help=command.purpose, description=command.purpose, allow_abbrev=False))
    sys.stdout.write(shtab.complete(whole, shell=options.shell))
    return 0
