"""python -m musicgen: see cli.py."""

import sys

from .cli.main import main

sys.exit(main())
