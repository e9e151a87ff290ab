"""`python -m minillm` is the `minillm` command."""

import sys

from .commands.cli import main

sys.exit(main())
