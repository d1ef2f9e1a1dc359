# The image of the Kubernetes job (jobs/rayjob.yaml, docs/cluster.md): this project with the tested versions, at
# /opt/flowers_batch. TensorFlow's CUDA libraries come from PyPI; the node brings the driver.
#
#     docker build --tag REGISTRY/flowers-batch:0.2.0 .
#
# `--build-arg EXTRAS=` leaves the CUDA libraries out, for clusters without GPUs.
FROM python:3.11-slim-bookworm

# KubeRay probes its containers with bash and wget.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash wget \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 ray
WORKDIR /opt/flowers_batch

COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY tensorflow_vgg tensorflow_vgg
COPY flowers_batch flowers_batch
ARG EXTRAS=[gpu,raw,jxl]
RUN pip install --no-cache-dir --constraint constraints.txt ".${EXTRAS}"
COPY jobs jobs

ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1
USER 1000
CMD ["flowers-batch", "--help"]
