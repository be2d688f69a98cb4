"""The WSGI application; gunicorn serves it."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "penpay.settings")
os.environ.setdefault("DATABASE_LOCK_WAIT_S", "1")  # a request waits no longer for another one; workers may
application = get_wsgi_application()
