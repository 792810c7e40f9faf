FROM python:3.12-slim
LABEL "skelebot.project"="demo"
ENV TZ="Europe/Berlin"
RUN ["sh", "-c", "[ -f \"/usr/share/zoneinfo/$1\" ] || { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends tzdata && rm -rf /var/lib/apt/lists/*; } || true\n[ -f \"/usr/share/zoneinfo/$1\" ] ||\n    { echo \"the image has no time zone $1; add tzdata to its base\" >&2; exit 1; }\nln -snf \"/usr/share/zoneinfo/$1\" /etc/localtime && echo \"$1\" >/etc/timezone", "timezone", "Europe/Berlin"]
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends git libgomp1 && rm -rf /var/lib/apt/lists/*
RUN echo $HOME && echo "a b"
WORKDIR /app
COPY [".", "/app/"]
RUN echo ready
RUN ["/bin/sh", "-c", "[ -d /app ] && echo there"]
RUN ["/bin/sh", "-c", "echo one\necho two"]
RUN ["/bin/sh", "-c", "--mount=type=bind echo"]
RUN ["/bin/sh", "-c", "<<EOF echo"]
RUN ["/bin/sh", "-c", "echo \\"]
USER worker
