FROM python:3.12-slim
LABEL skelebot.project="\$(touch evil); \"Quoted\" 'Name' \\ `id`"
WORKDIR /app
ENV PYTHONPATH="/app${PYTHONPATH:+:$PYTHONPATH}"
COPY . /app/
LABEL org.opencontainers.image.authors="Ada \"\$(touch evil)\" \$HOME \${PATH} \\ 'x'; LABEL evil=1 #"
ENTRYPOINT []
CMD ["sh", "-c", "exec \"${1}\" \"${2}\" \"${3}\" \"${4}\" \"${5}\" ${HOME+\"${6}\" \"$HOME\"}", "$(touch evil)\"; touch evil", "python", "-u", "it's $(touch evil).py", "--$(touch evil)", "\nRUN touch evil", "--home"]
