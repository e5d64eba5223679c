"""The command line: ``crosstok demo`` and ``crosstok score``. Needs the extras ``[cli]`` and ``[torch]``."""
