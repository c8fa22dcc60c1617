"""python -m musicgen: see cli/main.py."""

import sys

if sys.argv[1:2] == ["doctor"]:  # runs where torch cannot be imported, which every other command needs
    from .cli.doctor import main
else:
    from .cli.main import main

sys.exit(main())
