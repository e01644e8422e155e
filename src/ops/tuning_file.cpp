#include "ops/tuning_file.hpp"

#include <utility>

#ifdef ORIEL_CUDA
#include <c10/core/DeviceGuard.h>
#include <cublasLt.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/log.hpp"
#include "core/safetensors.hpp"
#include "ops/cuda/launch.hpp"
#endif

namespace oriel::ops {

#ifdef ORIEL_CUDA

namespace {

using kernels::MatmulChoice;

constexpr const char* tensor_name = "products";
constexpr int64_t most_rows = 100'000;
constexpr size_t shape_numbers = 6;
constexpr size_t row_numbers = shape_numbers + MatmulChoice::setting_count;
using Row = std::array<int64_t, row_numbers>;  // of the tensor: the numbers of a shape, then the settings

/// What choices depend on beside the shape; the metadata of the file.
std::map<std::string, std::string> origin(c10::Device device) {
  cudaDeviceProp properties{};
  cuda::check(cudaGetDeviceProperties(&properties, device.index()), "device");
  const cuda::Chip chip = cuda::chip_of(device);
  return {{"oriel_tuning", "3"},
          {"gpu", properties.name},
          {"compute_capability", fmt::format("{}.{}", chip.major, chip.minor)},
          {"processors", std::to_string(chip.processors)},
          {"cublaslt", std::to_string(cublasLtGetVersion())}};
}

Row to_row(const MatmulChoice& choice) {
  const kernels::MatmulShape& shape = choice.shape;
  Row row{shape.rows, shape.in, shape.out, shape.x_stride, shape.element, shape.epilogue};
  std::copy(choice.settings.begin(), choice.settings.end(), row.begin() + shape_numbers);
  return row;
}

MatmulChoice to_choice(const Row& row) {
  MatmulChoice choice{.shape = {.rows = row[0],
                                .in = row[1],
                                .out = row[2],
                                .x_stride = row[3],
                                .element = static_cast<int32_t>(row[4]),
                                .epilogue = static_cast<int32_t>(row[5])}};
  std::copy(row.begin() + shape_numbers, row.end(), choice.settings.begin());
  return choice;
}

/// The rows of a file of this origin, or none; damage is an Error.
std::vector<Row> read(const std::filesystem::path& path, const std::map<std::string, std::string>& from) {
  std::error_code status;
  if (!std::filesystem::exists(path, status)) return {};
  const SafetensorsFile file = SafetensorsFile::open(path);
  if (file.metadata() != from) return {};
  const TensorInfo* tensor = file.find(tensor_name);
  if (tensor == nullptr || tensor->dtype != "I64" || tensor->shape.size() != 2 ||
      tensor->shape[1] != static_cast<int64_t>(row_numbers))
    throw_error(ErrorCode::file_error, "{}: expected a tensor {} of I64 [*, {}]", path.string(), tensor_name,
                row_numbers);
  if (tensor->shape[0] > most_rows)
    throw_error(ErrorCode::file_error, "{}: expected at most {} rows, got {}", path.string(), most_rows,
                tensor->shape[0]);
  std::vector<Row> rows(static_cast<size_t>(tensor->shape[0]));
  if (!rows.empty()) std::memcpy(rows.data(), file.bytes(*tensor).data(), rows.size() * sizeof(Row));
  return rows;
}

}  // namespace

TuningFile::TuningFile(std::filesystem::path path, c10::Device device) : path_(std::move(path)), device_(device) {
  if (!device_.is_cuda()) return;
  const c10::DeviceGuard guard(device_);
  saved_ = cuda::products_of(device_).chosen();
  try {
    std::vector<MatmulChoice> choices;
    for (const Row& row : read(path_, origin(device_))) choices.push_back(to_choice(row));
    cuda::products_of(device_).adopt(choices);
  } catch (const Error& error) {
    log({}, LogLevel::warning, std::string("tuning_file: ignored: ") + error.what());
  }
}

void TuningFile::save_if_new() {
  if (!device_.is_cuda()) return;
  const int64_t chosen = cuda::products_of(device_).chosen();
  const std::lock_guard lock(mutex_);
  if (chosen == saved_) return;
  saved_ = chosen;
  try {
    const std::map<std::string, std::string> from = origin(device_);
    std::map<kernels::MatmulShape, Row> rows;
    for (const MatmulChoice& choice : cuda::products_of(device_).choices()) rows.emplace(choice.shape, to_row(choice));
    try {
      for (const Row& row : read(path_, from)) rows.emplace(to_choice(row).shape, row);
    } catch (const Error&) {
      // damaged: what is written now replaces it
    }
    std::vector<Row> packed;
    for (const auto& [shape, row] : rows) packed.push_back(row);
    const TensorToWrite tensor{tensor_name,
                               "I64",
                               {static_cast<int64_t>(packed.size()), static_cast<int64_t>(row_numbers)},
                               std::as_bytes(std::span(packed))};
    write_safetensors(path_, {&tensor, 1}, from);
  } catch (const Error& error) {
    log({}, LogLevel::warning, std::string("tuning_file: not stored: ") + error.what());
  }
}

#else

TuningFile::TuningFile(std::filesystem::path path, c10::Device device) : path_(std::move(path)), device_(device) {}

void TuningFile::save_if_new() {}

#endif

}  // namespace oriel::ops
