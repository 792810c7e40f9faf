FROM rocker/r-ver:4.5
LABEL "skelebot.project"="demo"
WORKDIR /app
COPY [".", "/app/"]
