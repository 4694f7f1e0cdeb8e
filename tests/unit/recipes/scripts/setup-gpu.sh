#!/usr/bin/env bash
# A script for an RTX 5090 as recipes on the web write it.
set -e
sudo nvidia-smi -pm 1
sudo nvidia-smi -pl 600
sudo nvidia-smi -ac 3002,2550
sudo nvidia-smi -lgc 2400,2550
sudo nvidia-smi -lmc 3002
sudo nvidia-smi -c EXCLUSIVE_PROCESS
echo 0 | sudo tee /proc/sys/kernel/numa_balancing
mkdir -p /tmp/cuda_cache && chmod 1777 /tmp/cuda_cache
export CUDA_CACHE_PATH=/tmp/cuda_cache
export CUDA_ALLOCATOR_BACKEND=cudaMallocAsync
export CUDA_TENSOR_CORES=1
export CUDA_L2_PERSISTING_SIZE=100663296
nvidia-smi -q | grep "Tensor Cores"
nvidia-smi -q -d PERFORMANCE | grep "Clocks Throttle Reasons"
numactl --cpunodebind=0 --membind=0 python -m vllm.entrypoints.openai.api_server \
    --model /app/models/qwen \
    --swap-space 4 \
    --gpu-memory-utilisation 0.9
sync; echo 3 > /proc/sys/vm/drop_caches
