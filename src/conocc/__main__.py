"""``python -m conocc`` is ``conocc``."""

from conocc.cli import main

main()
