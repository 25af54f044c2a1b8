"""``python -m streamgeo``."""

import sys

from streamgeo.cli import main

sys.exit(main())
