FROM rocker/r-ver:4.5
LABEL "skelebot.project"="demo"
WORKDIR /app
RUN ["sh", "-c", "set -eu\npython3 -m pip --version >/dev/null 2>&1 || { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-pip && rm -rf /var/lib/apt/lists/*; }\ncommand -v python >/dev/null || ln -s \"$(command -v python3)\" /usr/local/bin/python\n[ -n \"$1\" ] || exit 0\nfound=$(python -c 'import platform; print(platform.python_version())')\ncase $found. in \"$1\".*) exit 0 ;; esac\necho \"the image's Python is $found, and pythonVersion $1; name a baseImage that has R and that Python\" >&2\nexit 1", "python", "3.11"]
ENV RENV_CONFIG_AUTOLOADER_ENABLED="FALSE"
RUN ["sh", "-c", "command -v Rscript >/dev/null || {\n    echo 'the base image has no R: name one that has (baseImage), or add r-base-core to build.packages' >&2\n    exit 1\n}\n"]
RUN ["sh", "-c", "rm -f /usr/local/share/skelebot-r-packages\nprintf %s \"$1\" >\"$0\"\nchmod 755 \"$0\"\n", "/usr/local/bin/skelebot-r-install", "..."]
RUN ["/usr/local/bin/skelebot-r-install", "", "zoo"]
RUN command -v git >/dev/null || { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends git ca-certificates && rm -rf /var/lib/apt/lists/*; }
RUN ["/usr/local/bin/skelebot-r-install", "", "git:https://github.com/owner/repo"]
RUN ["sh", "-c", "set -eu\nif python -m pip config list 2>/dev/null | grep -qE '(index-url|find-links|no-index)='; then\n    uv=\nelse\n    export PIP_BREAK_SYSTEM_PACKAGES=1\n    command -v uv >/dev/null || python -m pip install --quiet --no-cache-dir uv || true\n    uv=$(command -v uv) || uv=\nfi\n{\n    echo '#!/bin/sh'\n    echo 'export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1'\n    if [ -n \"$uv\" ]; then\n        echo 'export UV_BREAK_SYSTEM_PACKAGES=1 UV_LINK_MODE=copy'\n        echo 'export SSL_CERT_FILE=\"${SSL_CERT_FILE:-${PIP_CERT:-}}\"'\n        echo '[ -n \"$SSL_CERT_FILE\" ] || unset SSL_CERT_FILE'\n        echo 'grep -q \" /root/.cache \" /proc/self/mounts || export UV_NO_CACHE=1'\n        echo \"exec $uv pip install --python \\\"\\$(command -v python)\\\" --compile-bytecode \\\\\"\n        echo '    --index-strategy unsafe-best-match \"$@\"'\n    else\n        echo 'grep -q \" /root/.cache \" /proc/self/mounts || export PIP_NO_CACHE_DIR=1'\n        echo 'exec python -m pip install \"$@\"'\n    fi\n} >/usr/local/bin/skelebot-install\nchmod 755 /usr/local/bin/skelebot-install\n"]
RUN ["/usr/local/bin/skelebot-install", "numpy"]
RUN ["/usr/local/bin/skelebot-install", "numpy", "git+https://github.com/owner/tool"]
COPY [".", "/app/"]
