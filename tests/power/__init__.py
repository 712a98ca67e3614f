"""Power cuts: every durable write and every message of a process has a number, and the process is killed there.

``hook.py`` is loaded into the processes by the throw-away interpreter that ``interpreter.py`` makes: nothing in the
program knows of it, and what devices measure of themselves stays as it is. ``world.py`` is the world that is cut,
``whole.py`` says what must hold in it after each cut.
"""
