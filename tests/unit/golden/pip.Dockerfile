FROM python:3.12-slim
LABEL skelebot.project="demo"
RUN echo first
WORKDIR /app
# pip installs the packages, as uv does not read this as pip does: pre.txt:2: --pre
RUN echo 'python -m pip install --disable-pip-version-check' >/usr/local/share/skelebot-installer \
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
COPY pre.txt /app/pre.txt
RUN skelebot-install -r pre.txt
RUN command -v git >/dev/null || { \
    apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends git ca-certificates \
 && rm -rf /var/lib/apt/lists/*; }
RUN skelebot-install -r pre.txt 'foo @ git+https://example.org/foo'
RUN skelebot-install -r pre.txt 'foo @ git+https://example.org/foo' 'a<2,>=1'
RUN skelebot-install -r pre.txt 'foo @ git+https://example.org/foo' 'a<2,>=1' 'b[x,y]'
RUN skelebot-install -r pre.txt 'foo @ git+https://example.org/foo' 'a<2,>=1' 'b[x,y]' \
    'c; python_version < "4"'
ENV PYTHONPATH="/app${PYTHONPATH:+:$PYTHONPATH}"
COPY . /app/
