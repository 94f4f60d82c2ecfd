# ramify on a CPU, with the versions of constraints.txt.
#
#   docker build -t ramify .
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" ramify train photos data.source=my_photos name=mine
#   docker run --rm -v "$PWD:/work" -p 127.0.0.1:8000:8000 ramify serve mine --host 0.0.0.0
FROM python:3.12-slim
WORKDIR /opt/ramify
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
    --constraint constraints.txt '.[search,explain,export,serve]'
# Downloads and caches of any user; runs are written to the folder that is mounted at /work.
ENV RAMIFY_CACHE=/work/.cache/ramify HOME=/tmp
WORKDIR /work
ENTRYPOINT ["ramify"]
CMD ["--help"]
