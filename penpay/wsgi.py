"""The WSGI application; gunicorn serves it."""

import os
import sys

from django.core.wsgi import get_wsgi_application

# A request that waits for the database wants Python's lock back a dozen times, each time for up to this long while
# another one computes (Python's own: 5 ms). Measured under a flood of sign-ins: docs/adr/0029.
sys.setswitchinterval(0.0005)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "penpay.settings")
os.environ.setdefault("DATABASE_LOCK_WAIT_S", "1")  # a request waits no longer for another one; workers may
application = get_wsgi_application()
