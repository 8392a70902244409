# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends busybox-static ca-certificates \
 && rm -rf /var/lib/apt/lists/*
# The Cargo features of the build, such as otlp.
ARG FEATURES=""
# The commit that `roomcast --version` shows; the repository is not copied: --build-arg COMMIT=$(git rev-parse
# --short=12 HEAD).
ARG COMMIT=""
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY packaging packaging
COPY contracts contracts
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    ROOMCAST_COMMIT="$COMMIT" cargo build --locked --release --bin roomcast --features "$FEATURES" && cp target/release/roomcast /roomcast
RUN packaging/rootfs /roomcast /rootfs

FROM scratch
LABEL org.opencontainers.image.title="roomcast" \
      org.opencontainers.image.description="A Socket.IO server that is configured, not coded, and scales out through Redis." \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /rootfs /
# Numeric ids, because Kubernetes' runAsNonRoot needs them.
USER 65532:65532
EXPOSE 3000 3001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/usr/local/bin/wget", "-q", "-O", "-", "http://127.0.0.1:3000/live"]
ENTRYPOINT ["/usr/local/bin/roomcast"]
CMD ["serve", "--config", "/etc/roomcast/roomcast.toml"]
