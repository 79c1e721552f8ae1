"""Entry point of ``python -m jepa_agent.zoo``."""

import sys

from jepa_agent.zoo import main

sys.exit(main())
