FROM r-base:latest
LABEL "skelebot.project"="demo"
WORKDIR /app
COPY [".", "/app/"]
