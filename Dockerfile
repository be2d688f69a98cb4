# Two stages: the first has a compiler and builds the wheels (mysqlclient is source only), the second has neither.
FROM python:3.12-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev pkg-config default-libmysqlclient-dev \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.txt .
RUN pip wheel --no-cache-dir --no-deps --require-hashes --wheel-dir /wheels --requirement requirements.txt
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --no-index --no-deps /wheels/*.whl

FROM python:3.12-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends libmariadb3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /srv --shell /usr/sbin/nologin penpay \
    && install -d -o penpay /srv/.local && install -d -o penpay -m 700 /srv/anchor
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DJANGO_SETTINGS_MODULE=penpay.settings
WORKDIR /srv
COPY --from=build /venv /venv
COPY . .
RUN python -m compileall -q .
USER penpay
EXPOSE 8000
# no access log: a callback's path holds its secret; no header of a request says where we are mounted (SCRIPT_NAME)
CMD ["gunicorn", "penpay.wsgi:application", "--bind", "0.0.0.0:8000", "--workers", "4", "--threads", "4", "--forwarder-headers", ""]
