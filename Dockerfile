# perfbench beside vLLM for CUDA. Build and run (the model folder and the results are mounted, the GPU is passed through):
#
#   docker build -t perfbench .
#   docker run --rm --gpus all --ipc=host -v "$PWD":/work -v ~/.cache/huggingface:/root/.cache/huggingface \
#       perfbench run /work/my-model.yaml --out /work/results
#
# Not built by CI (no Docker engine and no GPU there); `perfbench doctor` inside the container says what it can measure.
FROM vllm/vllm-openai:v0.32.0

COPY pyproject.toml README.md LICENSE /opt/perfbench/
COPY perfbench /opt/perfbench/perfbench
COPY scenarios /opt/perfbench/scenarios
# bubblewrap: the strongest level of the sandbox in which answers of coding tasks run.
RUN apt-get update && apt-get install -y --no-install-recommends bubblewrap && rm -rf /var/lib/apt/lists/* \
    && python3 -m pip install --no-cache-dir "/opt/perfbench[quality]" "peft>=0.19" "safetensors>=0.5"

ENV PERFBENCH_CACHE=/work/.perfbench
WORKDIR /work
ENTRYPOINT ["perfbench"]
CMD ["doctor"]
