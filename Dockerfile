# The server, without its build tools. Scripts and SQL are copied in; a volume may take their place.
FROM debian:bookworm-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev liblua5.4-dev libmicrohttpd-dev \
        libpq-dev lua-cjson-dev meson ninja-build pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /moonpool
COPY meson.build meson_options.txt ./
COPY core core
COPY fuzz fuzz
RUN meson setup build --buildtype=release -Db_lto=true && ninja -C build moonpool

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends libmicrohttpd12 libpq5 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home moonpool
COPY --from=build /moonpool/build/moonpool /usr/local/bin/moonpool
WORKDIR /moonpool
COPY scripts scripts
COPY sql sql
USER moonpool
ENV MOONPOOL_LISTEN=0.0.0.0:8608 \
    MOONPOOL_ADMIN_LISTEN=0.0.0.0:8609 \
    MOONPOOL_SCRIPTS=/moonpool/scripts \
    MOONPOOL_SQL=/moonpool/sql
EXPOSE 8608 8609
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/8609 && printf 'GET /livez HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["moonpool"]
CMD ["serve"]
