# syntax=docker/dockerfile:1
# The control plane: one static program, the proxy's program that it gives to running proxies where the Mesh says so, and
# nothing else in the image.
#
# The proxy's program is taken from the proxy's image, which is built first: it must be the very same file, or each new pod's
# proxy would be replaced as soon as it runs.
#
#   docker build -f k8s/images/proxy.Dockerfile --build-arg VERSION=0.2.0 -t ghcr.io/weft-mesh/weft-proxy:0.2.0 .
#   docker build -f k8s/images/control-plane.Dockerfile --build-arg VERSION=0.2.0 \
#     --build-arg PROXY=ghcr.io/weft-mesh/weft-proxy:0.2.0 -t ghcr.io/weft-mesh/weft:0.2.0 .
#
# For several platforms: docker buildx build --platform linux/amd64,linux/arm64 ... (each is built on its own machine or
# under emulation: the program is compiled where it runs). Each has the proxy's program of its own platform; a cluster of
# several needs an image made from this one with all of them, and WEFT_PROXY_PROGRAM with their paths.
ARG PROXY=ghcr.io/weft-mesh/weft-proxy:0.2.0

FROM rust:1.95-alpine AS build
# aws-lc is C and assembly: a compiler and the headers of the C library; cmake where there is no ready-made list of its
# files (there is one for x86_64).
RUN apk add --no-cache build-base cmake
WORKDIR /source
COPY . .
# Alpine's own target is musl: programs are linked statically, the resolver of names with them.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --release --locked --bin weft \
    && cp target/release/weft /weft \
    && ! readelf -d /weft | grep NEEDED

FROM ${PROXY} AS proxy

FROM scratch
ARG VERSION=dev
LABEL org.opencontainers.image.title="weft" \
      org.opencontainers.image.description="Control plane of the service mesh Weft" \
      org.opencontainers.image.source="https://github.com/weft-mesh/weft" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build --chmod=0555 /weft /weft
COPY --from=proxy --chmod=0555 /weft-proxy /weft-proxy
# Nobody's; by number, so that the kubelet can see that it is not root.
USER 65532:65532
ENTRYPOINT ["/weft"]
