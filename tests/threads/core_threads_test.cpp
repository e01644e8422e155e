// The pool, mapped files and JSON documents.
#include <algorithm>

#include "core/json.hpp"
#include "core/safetensors.hpp"
#include "core/temporary_directory.hpp"
#include "core/thread_pool.hpp"
#include "threads/in_threads.hpp"

namespace oriel {
namespace {

TEST(ThreadsOfPool, CallsNestAndOverlapAndFailWithoutMixing) {
  const ThreadPool pool(4);
  in_threads([&](int thread) {
    for (int round = 0; round < 60; ++round) {
      std::vector<int> counts(200);
      pool.parallel_for(10, 1, [&](int64_t begin, int64_t end) {
        for (int64_t outer = begin; outer < end; ++outer)
          pool.parallel_for(20, 3, [&, outer](int64_t first, int64_t last) {
            for (int64_t inner = first; inner < last; ++inner) ++counts[static_cast<size_t>(20 * outer + inner)];
          });
      });
      expect(counts == std::vector<int>(200, 1), "every item runs once");
      std::string caught;
      try {
        pool.parallel_for(100, 1, [&](int64_t begin, int64_t) {
          if (begin >= 50) throw std::runtime_error("thread " + std::to_string(thread));
        });
      } catch (const std::runtime_error& error) {
        caught = error.what();
      }
      expect(caught == "thread " + std::to_string(thread), "a call gets its own exception");
    }
  });
}

TEST(ThreadsOfPool, PoolsComeAndGoUnderWork) {
  in_threads([](int) {
    for (int round = 0; round < 20; ++round) {
      const ThreadPool pool(3);
      std::vector<int> items(50);
      pool.parallel_for(50, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) items[static_cast<size_t>(i)] = 1;
      });
      expect(items == std::vector<int>(50, 1), "every item runs once");
    }
  });
}

TEST(ThreadsOfFiles, ReadersShareOneMapping) {
  const TemporaryDirectory directory;
  const std::vector<std::byte> ones(10'000, std::byte{1});
  const std::filesystem::path path = directory.path() / "model.safetensors";
  const std::vector<TensorToWrite> tensors{{"a", "U8", {10'000}, ones}, {"b", "F32", {50, 50}, ones}};
  write_safetensors(path, tensors, {{"k", "v"}});
  const SafetensorsFile file = SafetensorsFile::open(path);
  in_threads([&](int thread) {
    for (int round = 0; round < 50; ++round) {
      const SafetensorsFile own = round % 2 == 0 ? file : SafetensorsFile::open(path);
      const TensorInfo* tensor = own.find(thread % 2 == 0 ? "a" : "b");
      expect(tensor != nullptr && std::ranges::equal(own.bytes(*tensor), ones), "all bytes are there");
      own.release(*tensor);
    }
  });
}

TEST(ThreadsOfJson, OneDocumentServesAll) {
  const Json document = Json::parse(R"({"vision": {"sizes": [1, 2, 3], "name": "x"}})", "config.json");
  in_threads([&](int) {
    for (int round = 0; round < 200; ++round) {
      const Json vision = document["vision"];
      expect(vision["sizes"].integers() == std::vector<int64_t>{1, 2, 3}, "the array is there");
      expect(vision["name"].dump() == "\"x\"" && vision["other"].is_absent(), "so is the text");
    }
  });
}

}  // namespace
}  // namespace oriel
