#!/bin/sh
# Installs the programs that plumb is held against, and builds what is compiled.
#
#     benches/peers/setup.sh DIR MODEL.gguf
#
# DIR gets venv/ (torch, transformers, TRL), hf/ and hf-bf16/ (the model as Hugging Face folders), gguf/model-{f32,bf16,q8_0}.gguf and
# llama-build/bin (llama.cpp's benchmarks, built for this machine). MODEL is a GGUF of the Llama family with tied embeddings; a
# quantized one is dequantized, which is right for speed and says nothing about quality. Needs python3 with venv, a C++ compiler and
# 8 GB of disk; takes some minutes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -eq 2 ] || { sed -n '2,5p' "$0" >&2; exit 2; }
mkdir -p "$1/gguf" "$1/src"
dir=$(cd "$1" && pwd); model=$(realpath "$2")
[ -f "$model" ] || { echo "there is no file $2" >&2; exit 2; }

python3 -m venv "$dir/venv"
. "$dir/venv/bin/activate"
pip install -q torch==2.15.0 transformers==5.23.0 trl==1.16.0 accelerate==1.15.0 datasets==5.2.0 gguf==0.19.0 sentencepiece protobuf \
  wheel cmake ninja scikit-build-core
python "$here/convert.py" "$model" "$dir/hf" "$dir/hf-bf16"

# llama.cpp from the sources that the source package of its Python binding carries.
cd "$dir/src"
pip download -q --no-deps --no-binary :all: --no-build-isolation llama-cpp-python==0.3.36
tar xzf llama_cpp_python-0.3.36.tar.gz
llama=$dir/src/llama_cpp_python-0.3.36/vendor/llama.cpp
cmake -S "$llama" -B "$dir/llama-build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF \
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TOOLS=ON
cmake --build "$dir/llama-build" --target llama-bench llama-batched-bench
for format in f32 bf16 q8_0; do
  python "$llama/convert_hf_to_gguf.py" "$dir/hf" --outtype "$format" --outfile "$dir/gguf/model-$format.gguf"
done
echo "done: python benches/peers/compare.py $dir"
