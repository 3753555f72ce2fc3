"""`python -m lading_server`."""

import sys

from lading_server.app import main

sys.exit(main())
