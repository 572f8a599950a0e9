"""``python -m skinlesion`` is the command ``skinlesion``."""

import sys

from skinlesion.cli import main

sys.exit(main())
