FROM python:3.12-slim
LABEL skelebot.project="demo"
ENV TZ="Europe/Berlin"
RUN test -f /usr/share/zoneinfo/Europe/Berlin || { \
    apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends tzdata \
 && rm -rf /var/lib/apt/lists/*; } || true
RUN test -f /usr/share/zoneinfo/Europe/Berlin \
 || { echo 'the image has no time zone Europe/Berlin; add tzdata to its base' >&2; exit 1; }
RUN ln -snf /usr/share/zoneinfo/Europe/Berlin /etc/localtime && echo Europe/Berlin >/etc/timezone
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends git libgomp1 \
 && rm -rf /var/lib/apt/lists/*
RUN echo $HOME && echo "a b"
WORKDIR /app
ENV PYTHONPATH="/app${PYTHONPATH:+:$PYTHONPATH}"
COPY . /app/
RUN echo ready
RUN ["/bin/sh", "-c", "[ -d /app ] && echo there"]
RUN ["/bin/sh", "-c", "echo one\necho two"]
RUN ["/bin/sh", "-c", "--mount=type=bind echo"]
RUN ["/bin/sh", "-c", "<<EOF echo"]
RUN ["/bin/sh", "-c", "echo \\"]
USER worker
