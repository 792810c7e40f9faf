FROM rocker/r-ver:4.5
LABEL skelebot.project="demo"
WORKDIR /app
RUN python3 -m pip --version >/dev/null 2>&1 || { \
    apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-pip \
 && rm -rf /var/lib/apt/lists/*; }
RUN command -v python >/dev/null || ln -s "$(command -v python3)" /usr/local/bin/python
RUN case "$(python -V)." in "Python 3.11."*) exit;; esac; \
    echo "the image has $(python -V), and pythonVersion is 3.11;" \
        'name a baseImage that has R and that Python' >&2; exit 1
ENV RENV_CONFIG_AUTOLOADER_ENABLED="FALSE"
RUN command -v Rscript >/dev/null || { \
    echo 'the base image has no R:' \
        'name one that has (baseImage), or add r-base-core to build.packages' >&2; exit 1; }
RUN rm -f /usr/local/share/skelebot-r-packages
RUN write skelebot-r-install
RUN skelebot-r-install '' zoo
RUN command -v git >/dev/null || { \
    apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends git ca-certificates \
 && rm -rf /var/lib/apt/lists/*; }
RUN skelebot-r-install '' git:https://github.com/owner/repo
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
RUN skelebot-install numpy
RUN skelebot-install numpy git+https://github.com/owner/tool
ENV PYTHONPATH="/app${PYTHONPATH:+:$PYTHONPATH}"
COPY . /app/
