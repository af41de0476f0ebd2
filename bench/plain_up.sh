#!/bin/bash
# What a person would do without labkit: the docker CLI, one node after the other.
# plain_up.sh NODES; the engine is the one that docker reaches, with the image labkit/node:26.1 on it.
set -euo pipefail
nodes=${1:-3}
image=${IMAGE:-labkit/node:26.1}

docker network create --internal plain >/dev/null
for i in $(seq "$nodes"); do
    docker run --detach --privileged --cgroupns private --name "plain$i" --hostname "plain$i" \
        --network plain --tmpfs /run --tmpfs /tmp "$image" >/dev/null
    until docker exec "plain$i" docker image inspect node-test >/dev/null 2>&1; do sleep 1; done
done
address() { docker inspect --format '{{.NetworkSettings.Networks.plain.IPAddress}}' "$1"; }
first=$(address plain1)
docker exec plain1 docker swarm init --advertise-addr "$first" >/dev/null
token=$(docker exec plain1 docker swarm join-token --quiet worker)
for i in $(seq 2 "$nodes"); do
    docker exec "plain$i" docker swarm join --token "$token" --advertise-addr "$(address "plain$i")" \
        "$first:2377" >/dev/null
done
until [ "$(docker exec plain1 docker node ls --format '{{.Status}}' | grep -c Ready)" = "$nodes" ]; do
    sleep 1
done
