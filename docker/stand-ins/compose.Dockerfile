# Docker Compose 2 as Debian 13 packages it, for a machine whose Debian has none. From the project's folder:
#
#   docker run --rm --network host -v "$PWD:$PWD" -w "$PWD" -v /var/run/docker.sock:/var/run/docker.sock \
#     linkspan-stand-in/compose --env-file docker/stand-ins.env -f docker/compose.yaml up --detach --wait linkspan
#
# It builds no images: `docker build -f docker/Dockerfile`, with the arguments that compose.yaml has, comes before.
FROM linkspan-stand-in/debian
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends docker-compose docker-cli \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
ENTRYPOINT ["docker-compose"]
