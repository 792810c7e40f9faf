FROM rocker/r-ver:4.5
LABEL "skelebot.project"="demo"
WORKDIR /app
ENV RENV_CONFIG_AUTOLOADER_ENABLED="FALSE"
RUN ["sh", "-c", "command -v Rscript >/dev/null || {\n    echo 'the base image has no R: name one that has (baseImage), or add r-base-core to build.packages' >&2\n    exit 1\n}\n"]
RUN ["sh", "-c", "rm -f /usr/local/share/skelebot-r-packages\nprintf %s \"$1\" >\"$0\"\nchmod 755 \"$0\"\n", "/usr/local/bin/skelebot-r-install", "..."]
RUN ["/usr/local/bin/skelebot-r-install", "https://cran.example.org", "data.table"]
RUN ["/usr/local/bin/skelebot-r-install", "https://cran.example.org", "zoo=1.8-12"]
RUN command -v git >/dev/null || { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends git ca-certificates && rm -rf /var/lib/apt/lists/*; }
RUN ["/usr/local/bin/skelebot-r-install", "https://cran.example.org", "git:https://github.com/owner/repo#v1"]
COPY ["libs/own 1.tar.gz", "/app/libs/own 1.tar.gz"]
RUN ["/usr/local/bin/skelebot-r-install", "https://cran.example.org", "file:libs/own 1.tar.gz"]
COPY ["renv.lock", "/app/renv.lock"]
RUN ["/usr/local/bin/skelebot-r-install", "https://cran.example.org", "renv:renv.lock"]
COPY [".", "/app/"]
