# For the CPU:  docker build -t conocc .
#               docker run --rm -v "$PWD:/data" conocc data inspect my-images
# For CUDA:     docker build -t conocc:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
#               docker run --rm --gpus all -v "$PWD:/data" conocc:cuda fit my-images --out run
# The container works as user 1000, and so must be allowed to write where it is to write, or be told
# another one: --user "$(id -u):$(id -g)".
# PyPI's build of PyTorch for Linux brings CUDA's libraries along; of the host it takes the driver
# and NVIDIA's container toolkit.
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /opt/conocc
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt --index-url "$TORCH_INDEX" \
      --extra-index-url https://pypi.org/simple torch
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir --constraint constraints.txt '.[onnx,serve,tables]'

# The key of pseudonyms and the cache lie in the mounted folder, or would be lost with the container.
ENV CONOCC_CONFIG=/data/.conocc/config CONOCC_CACHE=/data/.conocc/cache MPLCONFIGDIR=/tmp/matplotlib
RUN useradd --uid 1000 --create-home conocc
WORKDIR /data
USER conocc
ENTRYPOINT ["conocc"]
CMD ["--help"]
