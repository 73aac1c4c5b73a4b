"""Holds what each `matwm` command does; a command is imported when it is called."""
