FROM rocker/r-ver:4.5
LABEL skelebot.project="demo"
WORKDIR /app
ENV RENV_CONFIG_AUTOLOADER_ENABLED="FALSE"
RUN command -v Rscript >/dev/null || { \
    echo 'the base image has no R:' \
        'name one that has (baseImage), or add r-base-core to build.packages' >&2; exit 1; }
RUN rm -f /usr/local/share/skelebot-r-packages
RUN write skelebot-r-install
RUN skelebot-r-install https://cran.example.org data.table
RUN skelebot-r-install https://cran.example.org zoo=1.8-12
RUN command -v git >/dev/null || { \
    apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends git ca-certificates \
 && rm -rf /var/lib/apt/lists/*; }
RUN skelebot-r-install https://cran.example.org 'git:https://github.com/owner/repo#v1'
COPY ["libs/own 1.tar.gz", "/app/libs/own 1.tar.gz"]
RUN skelebot-r-install https://cran.example.org 'file:libs/own 1.tar.gz'
COPY renv.lock /app/renv.lock
RUN skelebot-r-install https://cran.example.org renv:renv.lock
COPY . /app/
