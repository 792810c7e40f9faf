FROM python:3.12-slim
LABEL skelebot.project="demo"
WORKDIR /app
ENV PYTHONPATH="/app${PYTHONPATH:+:$PYTHONPATH}"
COPY . /app/
ENTRYPOINT ["python", "-u", "train.py"]
