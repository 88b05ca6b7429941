# syntax=docker/dockerfile:1
# The proxy beside a workload, which is also the init container that captures and the CNI plugin with its installer: one
# static program, and nothing else in the image. (Capture speaks to the kernel's nftables by itself. Nodes whose kernel
# has only iptables-legacy need an image with those programs, made from this one, or capture by the CNI plugin.)
#
#   docker build -f k8s/images/proxy.Dockerfile --build-arg VERSION=0.2.0 -t ghcr.io/weft-mesh/weft-proxy:0.2.0 .

FROM rust:1.95-alpine AS build
# As for the control plane, whose file says why.
RUN apk add --no-cache build-base cmake
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --release --locked --package weft-proxy --bin weft-proxy \
    && cp target/release/weft-proxy /weft-proxy \
    && ! readelf -d /weft-proxy | grep NEEDED

FROM scratch
ARG VERSION=dev
LABEL org.opencontainers.image.title="weft-proxy" \
      org.opencontainers.image.description="Proxy of the service mesh Weft" \
      org.opencontainers.image.source="https://github.com/weft-mesh/weft" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build --chmod=0555 /weft-proxy /weft-proxy
# The user whose connections capture leaves alone.
USER 14001:14001
ENTRYPOINT ["/weft-proxy"]
