"""The main job: a world of separate processes, and a fleet that comes online in it by itself."""

from firstlight.cli.demo.main import command

__all__ = ["command"]
