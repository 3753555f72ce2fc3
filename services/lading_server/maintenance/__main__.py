"""`python -m lading_server.maintenance`."""

import sys

from lading_server.maintenance.commands import main

sys.exit(main())
