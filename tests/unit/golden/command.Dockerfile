FROM python:3.12-slim
LABEL skelebot.project="demo"
WORKDIR /app
ENV PYTHONPATH="/app${PYTHONPATH:+:$PYTHONPATH}"
COPY . /app/
ENTRYPOINT []
CMD ["bash", "-c", "python -m train && echo \"$HOME\" \"$@\"", "train", "--rate", "1.0", "--fast", "--columns", "a", "b c"]
