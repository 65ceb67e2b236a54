# Stand-ins for images that cannot be pulled where there is no container registry, with the users, folders and
# programs of the real ones that docker-compose.yml counts on.
FROM python:3.11-slim-bookworm AS base
# `wget -q -O /dev/null URL`, as busybox has it.
RUN printf '#!/usr/bin/python3\nimport sys, urllib.request\nurllib.request.urlopen(sys.argv[-1], timeout=3)\n' \
    > /usr/bin/wget && chmod 755 /usr/bin/wget

FROM base AS prometheus
COPY prometheus promtool /bin/
RUN install --directory --owner nobody --group nogroup /prometheus
USER 65534
ENTRYPOINT ["/bin/prometheus"]

FROM base AS grafana
COPY grafana.py /grafana.py
RUN useradd --uid 472 --no-create-home grafana && install --directory --owner grafana /var/lib/grafana
USER 472
ENTRYPOINT ["python3", "/grafana.py"]
