FROM python:3.12-slim
LABEL "skelebot.project"="demo"
WORKDIR /app
COPY [".", "/app/"]
