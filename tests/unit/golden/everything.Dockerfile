FROM python:3.10-slim
LABEL "skelebot.project"="demo"
ENV TZ="Europe/Berlin"
RUN ["sh", "-c", "[ -f \"/usr/share/zoneinfo/$1\" ] || { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends tzdata && rm -rf /var/lib/apt/lists/*; } || true\n[ -f \"/usr/share/zoneinfo/$1\" ] ||\n    { echo \"the image has no time zone $1; add tzdata to its base\" >&2; exit 1; }\nln -snf \"/usr/share/zoneinfo/$1\" /etc/localtime && echo \"$1\" >/etc/timezone", "timezone", "Europe/Berlin"]
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
RUN echo first
WORKDIR /app
RUN ["sh", "-c", "set -eu\nif python -m pip config list 2>/dev/null | grep -qE '(index-url|find-links|no-index)='; then\n    uv=\nelse\n    export PIP_BREAK_SYSTEM_PACKAGES=1\n    command -v uv >/dev/null || python -m pip install --quiet --no-cache-dir uv || true\n    uv=$(command -v uv) || uv=\nfi\n{\n    echo '#!/bin/sh'\n    echo 'export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1'\n    if [ -n \"$uv\" ]; then\n        echo 'export UV_BREAK_SYSTEM_PACKAGES=1 UV_LINK_MODE=copy'\n        echo 'export SSL_CERT_FILE=\"${SSL_CERT_FILE:-${PIP_CERT:-}}\"'\n        echo '[ -n \"$SSL_CERT_FILE\" ] || unset SSL_CERT_FILE'\n        echo 'grep -q \" /root/.cache \" /proc/self/mounts || export UV_NO_CACHE=1'\n        echo \"exec $uv pip install --python \\\"\\$(command -v python)\\\" --compile-bytecode \\\\\"\n        echo '    --index-strategy unsafe-best-match \"$@\"'\n    else\n        echo 'grep -q \" /root/.cache \" /proc/self/mounts || export PIP_NO_CACHE_DIR=1'\n        echo 'exec python -m pip install \"$@\"'\n    fi\n} >/usr/local/bin/skelebot-install\nchmod 755 /usr/local/bin/skelebot-install\n"]
RUN ["/usr/local/bin/skelebot-install", "numpy==1.26.4"]
RUN ["/usr/local/bin/skelebot-install", "numpy==1.26.4", "pandas>=2"]
COPY [".", "/app/"]
RUN echo ready
LABEL "org.opencontainers.image.authors"="Ada"
ENTRYPOINT ["python", "-u", "train.py"]
