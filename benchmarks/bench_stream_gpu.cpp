// bench_stream_gpu: files of pictures in memory to rows in a GPU's memory, one by one and with decoding ahead.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <iterator>
#include <semaphore>
#include <stdexcept>
#include <thread>

#include "bench.hpp"

namespace {

using Bytes = std::vector<std::byte>;

struct Arguments {
  std::string model;
  std::vector<std::string> pictures;
  int decoders = 4;
  int warm_up = 1;
  int repeats = 5;
};

void add_options(CLI::App& app, Arguments& arguments) {
  app.add_option("--model", arguments.model, "Hugging Face checkpoint directory")->required();
  app.add_option("--picture", arguments.pictures, "JPEG, PNG, WebP, BMP or GIF file; repeatable")->required();
  app.add_option("--decoders", arguments.decoders, "threads that decode ahead (default: 4)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--warm-up", arguments.warm_up,
                 "untimed passes over all pictures behind the first, whose time is printed as cold (default: 1)")
      ->check(CLI::Range(0, 1000));
  app.add_option("--repeats", arguments.repeats, "timed runs over all pictures (default: 5)")
      ->check(CLI::Range(1, 1'000'000));
}

Bytes read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

void embed(const oriel::VisionTower& tower, const oriel::Image& image) {
  (void)tower.get_image_embeddings(image, {.embeddings_cpu = false});
}

void wait() {
  if (const cudaError_t error = cudaDeviceSynchronize(); error != cudaSuccess)
    throw std::runtime_error(cudaGetErrorString(error));
}

/// Milliseconds until all rows are there, the pictures decoded by threads that stay a few ahead.
double stream(const oriel::VisionTower& tower, const std::vector<Bytes>& files, int decoders) {
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::promise<oriel::Image>> decoded(files.size());
  std::counting_semaphore<> room(2 * decoders);
  std::atomic<size_t> next{0};
  std::vector<std::jthread> threads;
  for (int i = 0; i < decoders; ++i)
    threads.emplace_back([&] {
      while (true) {
        room.acquire();  // before a picture is taken, so that the one waited for always has room
        const size_t picture = next++;
        if (picture >= files.size()) {
          room.release();
          return;
        }
        try {
          decoded[picture].set_value(oriel::Image::decode(files[picture]));
        } catch (...) {
          decoded[picture].set_exception(std::current_exception());
        }
      }
    });
  std::exception_ptr failure;
  for (std::promise<oriel::Image>& one : decoded) {
    try {
      const oriel::Image image = one.get_future().get();
      if (!failure) embed(tower, image);
    } catch (...) {
      failure = std::current_exception();
    }
    room.release();
  }
  if (failure) std::rethrow_exception(failure);
  wait();
  const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - begin;
  return elapsed.count();
}

void bench_stream(const Arguments& arguments) {
  const auto tower = oriel::VisionTower::load(arguments.model, {.device = oriel::Device::cuda()});
  std::vector<Bytes> files;
  for (const std::string& path : arguments.pictures) files.push_back(read(path));
  const auto decode_all = [&] {
    for (const Bytes& file : files) (void)oriel::Image::decode(file);
    return 0;
  };
  const auto one_by_one = [&] {
    for (const Bytes& file : files) {
      embed(tower, oriel::Image::decode(file));
      wait();
    }
    return 0;
  };
  const double cold_ms = bench::timed(one_by_one).second;  // in which products are timed
  for (int i = 0; i < arguments.warm_up; ++i) one_by_one();
  std::vector<double> decode_ms, single_ms, stream_ms;
  for (int i = 0; i < arguments.repeats; ++i) {
    decode_ms.push_back(bench::timed(decode_all).second);
    single_ms.push_back(bench::timed(one_by_one).second);
    stream_ms.push_back(stream(tower, files, arguments.decoders));
  }
  bench::JsonLine()
      .add("family", tower.family())
      .add("pictures", static_cast<int64_t>(files.size()))
      .add("decoders", int64_t{arguments.decoders})
      .add("cold_ms", std::vector{cold_ms})
      .add("decode_ms", decode_ms)
      .add("one_by_one_ms", single_ms)
      .add("stream_ms", stream_ms)
      .print();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Times files of pictures to rows on a GPU; each figure is of all pictures.", "bench_stream_gpu"};
  Arguments arguments;
  add_options(app, arguments);
  return run_program(app, argc, argv, [&] { bench_stream(arguments); });
}
