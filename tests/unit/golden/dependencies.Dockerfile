FROM python:3.10-slim
# uv installs the packages; pip, where it has an index of its own or uv is not available.
RUN if python -m pip config list | grep -E '(index-url|find-links|no-index)=' >/dev/null; then \
        echo 'python -m pip install --disable-pip-version-check'; \
    elif command -v uv >/dev/null \
        || PIP_BREAK_SYSTEM_PACKAGES=1 python -m pip install --quiet --no-cache-dir uv; then \
        echo "uv pip install --index-strategy unsafe-best-match --python $(command -v python)"; \
    else echo 'python -m pip install --disable-pip-version-check'; fi >/usr/local/share/skelebot-installer \
 && printf '%s\n' \
    '#!/bin/sh' \
    'export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_SRC=/usr/local/src PIP_NO_COMPILE=1' \
    'export UV_BREAK_SYSTEM_PACKAGES=1 UV_LINK_MODE=copy' \
    'if [ -n "${PIP_CERT:-}" ]; then export SSL_CERT_FILE="${SSL_CERT_FILE:-$PIP_CERT}"; fi' \
    'grep -q " /root/.cache " /proc/self/mounts || export PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1' \
    'before=$(mktemp)' \
    '$(cat /usr/local/share/skelebot-installer) "$@" || exit' \
    '# Compile what is new, but for the tests of the packages.' \
    'site=$(python -c "import sysconfig; print(sysconfig.get_path(\"purelib\"))")' \
    'find "$site" -name "*.py" -cnewer "$before" ! -path "*/tests/*" -print0 |' \
    '    xargs -0 -r -n 100 -P "$(nproc)" python -m compileall -qq' \
    'rm "$before"' \
    >/usr/local/bin/skelebot-install \
 && chmod 755 /usr/local/bin/skelebot-install
LABEL skelebot.project="Two Words"
WORKDIR /app
RUN skelebot-install numpy
RUN skelebot-install numpy pandas==2.2.0
RUN skelebot-install numpy pandas==2.2.0 'scikit-learn>=1.4,<2'
COPY requirements.txt /app/requirements.txt
RUN skelebot-install numpy pandas==2.2.0 'scikit-learn>=1.4,<2' -r requirements.txt
COPY dist/own.whl /app/dist/own.whl
RUN skelebot-install numpy pandas==2.2.0 'scikit-learn>=1.4,<2' -r requirements.txt ./dist/own.whl
ENV PYTHONPATH="/app${PYTHONPATH:+:$PYTHONPATH}"
COPY . /app/
