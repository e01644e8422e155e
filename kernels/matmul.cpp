// cuBLASLt is column-major: it computes y^T [out, rows] = weight [out, in] x^T [in, rows], with the row-major weight
// and x read as they lie (the weight transposed), so that a bias along `out` is its bias along the rows of the result.
#include "matmul.h"

#include <algorithm>
#include <array>
#include <cfloat>
#include <optional>
#include <utility>

#include "timing.h"

namespace oriel::kernels {
namespace {

constexpr int offered = 8;              // algorithms that are timed
constexpr int repetitions = 4;          // of each
constexpr float short_ms = 0.05F;       // of a product whose time depends on where its weight lies
constexpr float close = 1.5F;           // as many times the fastest: may be the fastest with its weight elsewhere
constexpr int64_t nominal_rows = 4096;  // what the one algorithm of deterministic products is chosen for

cudaError_t to_cuda(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return cudaSuccess;
    case CUBLAS_STATUS_ALLOC_FAILED:
      return cudaErrorMemoryAllocation;
    case CUBLAS_STATUS_NOT_SUPPORTED:
    case CUBLAS_STATUS_ARCH_MISMATCH:
      return cudaErrorNotSupported;
    case CUBLAS_STATUS_INVALID_VALUE:
      return cudaErrorInvalidValue;
    default:
      return cudaErrorUnknown;
  }
}

cudaDataType_t data_type(Element element) {
  switch (element) {
    case Element::float32:
      return CUDA_R_32F;
    case Element::bfloat16:
      return CUDA_R_16BF;
    case Element::float16:
      return CUDA_R_16F;
  }
  return CUDA_R_32F;
}

/// 2^n times 1, 1.25, 1.5 or 1.75.
int64_t bucket(int64_t rows) {
  int64_t octave = 64;
  while (octave * 2 <= rows) octave *= 2;
  const int64_t step = octave / 4;
  return (rows + step - 1) / step * step;
}

MatmulShape shape_of(const MatmulParams& p) {
  MatmulShape shape;
  shape.rows = p.deterministic ? 0 : bucket(p.rows);
  shape.in = p.in;
  shape.out = p.out;
  shape.x_stride = p.x_stride;
  shape.element = static_cast<int32_t>(p.element);
  shape.epilogue =
      (p.bias != nullptr ? 1 : 0) | (p.residual != nullptr ? 2 : 0) | (p.gelu_tanh ? 4 : 0) | (p.deterministic ? 8 : 0);
  return shape;
}

/// As MatmulChoice::settings[0] of a choice between two ways.
constexpr int64_t first_way = 1;
constexpr int64_t second_way = 2;

/// What cuBLASLt has to be told of a product; lives on the stack.
struct Description {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t weight, x, y;
  float alpha = 1;
  float beta = 0;

  cublasStatus_t init(const MatmulParams& p, int64_t rows) {
    const cudaDataType_t type = data_type(p.element);
    const auto n = static_cast<uint64_t>(rows);
    const auto in = static_cast<uint64_t>(p.in);
    const auto out = static_cast<uint64_t>(p.out);
    cublasStatus_t status = cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const auto set = [&](cublasLtMatmulDescAttributes_t what, const auto& value) {
      if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(&operation, what, &value, sizeof(value));
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, int32_t{CUBLAS_OP_T});
    const cublasLtEpilogue_t epilogue = p.gelu_tanh
                                            ? (p.bias != nullptr ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU)
                                        : p.bias != nullptr ? CUBLASLT_EPILOGUE_BIAS
                                                            : CUBLASLT_EPILOGUE_DEFAULT;
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    if (p.bias != nullptr) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    const auto layout = [&](cublasLtMatrixLayoutOpaque_t& l, uint64_t height, uint64_t width, int64_t stride) {
      if (status == CUBLAS_STATUS_SUCCESS) status = cublasLtMatrixLayoutInit(&l, type, height, width, stride);
    };
    layout(weight, in, out, p.in);
    layout(x, in, n, p.x_stride);
    layout(y, out, n, p.out);
    beta = p.residual != nullptr ? 1.0F : 0.0F;
    return status;
  }

  cublasStatus_t run(cublasLtHandle_t handle, const MatmulParams& p, const cublasLtMatmulAlgo_t& algorithm,
                     cudaStream_t stream) {
    const void* c = p.residual != nullptr ? p.residual : p.y;
    return cublasLtMatmul(handle, &operation, &alpha, p.weight, &weight, p.x, &x, &beta, c, &y, p.y, &y, &algorithm,
                          p.workspace, static_cast<size_t>(p.workspace_bytes), stream);
  }
};

struct Preference {
  cublasLtMatmulPreferenceOpaque_t value;

  cublasStatus_t init(const MatmulParams& p) {
    cublasStatus_t status = cublasLtMatmulPreferenceInit(&value);
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t what, const auto& setting) {
      if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulPreferenceSetAttribute(&value, what, &setting, sizeof(setting));
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(p.workspace_bytes));
    // Where sums are split, what puts them together is float32, too: a product is rounded once.
    const uint32_t whole = CUBLASLT_REDUCTION_SCHEME_NONE;
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        p.deterministic ? whole : whole | uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    return status;
  }
};

bool splits_sums(const cublasLtMatmulAlgo_t& algorithm) {
  int32_t parts = 1;
  cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts, sizeof(parts), nullptr);
  return parts != 1;  // 0 and -1 mean one of the library's own ways to split
}

/// A setting of an algorithm, and how many bytes cuBLASLt keeps it in.
struct Setting {
  cublasLtMatmulAlgoConfigAttributes_t attribute;
  size_t size;
};
constexpr std::array<Setting, MatmulChoice::setting_count> settings{{{CUBLASLT_ALGO_CONFIG_ID, 4},
                                                                     {CUBLASLT_ALGO_CONFIG_TILE_ID, 4},
                                                                     {CUBLASLT_ALGO_CONFIG_SPLITK_NUM, 4},
                                                                     {CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, 4},
                                                                     {CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, 4},
                                                                     {CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, 4},
                                                                     {CUBLASLT_ALGO_CONFIG_STAGES_ID, 4},
                                                                     {CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, 2},
                                                                     {CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, 2}}};

std::optional<std::array<int64_t, settings.size()>> settings_of(const cublasLtMatmulAlgo_t& algorithm) {
  std::array<int64_t, settings.size()> values{};
  for (size_t i = 0; i < settings.size(); ++i)  // little-endian: the rest of the eight bytes stays zero
    if (cublasLtMatmulAlgoConfigGetAttribute(&algorithm, settings[i].attribute, &values[i], settings[i].size,
                                             nullptr) != CUBLAS_STATUS_SUCCESS)
      return std::nullopt;
  return values;
}

/// The fastest by the times given; -1 if none has one.
int fastest_of(const std::vector<float>& milliseconds) {
  const auto fastest = std::min_element(milliseconds.begin(), milliseconds.end());
  return fastest == milliseconds.end() || *fastest == FLT_MAX ? -1 : static_cast<int>(fastest - milliseconds.begin());
}

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(stream, &capture) != cudaSuccess || capture != cudaStreamCaptureStatusNone;
}

}  // namespace

Matmul::Matmul() {
  if (cublasLtCreate(&handle_) != CUBLAS_STATUS_SUCCESS) handle_ = nullptr;
}

Matmul::~Matmul() {
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

cudaError_t Matmul::operator()(const MatmulParams& p, cudaStream_t stream) {
  if (handle_ == nullptr) return cudaErrorInitializationError;
  if (p.rows < 0 || p.in < 1 || p.out < 1 || p.x_stride < p.in || (p.gelu_tanh && p.residual != nullptr))
    return cudaErrorInvalidValue;
  if (p.rows == 0) return cudaSuccess;
  const MatmulShape shape = shape_of(p);
  cublasLtMatmulAlgo_t algorithm;
  Description description;
  if (const cublasStatus_t status = description.init(p, p.rows); status != CUBLAS_STATUS_SUCCESS)
    return to_cuda(status);
  bool known = false;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = known_.find(shape); found != known_.end()) {
      algorithm = found->second;
      known = true;
    }
  }
  if (known) {
    const cublasStatus_t status = description.run(handle_, p, algorithm, stream);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED && status != CUBLAS_STATUS_INVALID_VALUE) return to_cuda(status);
  }
  if (const cudaError_t error = choose(p, stream, algorithm); error != cudaSuccess) return error;
  return to_cuda(description.run(handle_, p, algorithm, stream));
}

cudaError_t Matmul::choose(const MatmulParams& p, cudaStream_t stream, cublasLtMatmulAlgo_t& algorithm) {
  Description description;
  Preference preference;
  cublasStatus_t status = description.init(p, p.deterministic ? nominal_rows : p.rows);
  if (status == CUBLAS_STATUS_SUCCESS) status = preference.init(p);
  std::array<cublasLtMatmulHeuristicResult_t, offered> results;
  int count = 0;
  if (status == CUBLAS_STATUS_SUCCESS)
    status = cublasLtMatmulAlgoGetHeuristic(handle_, &description.operation, &description.weight, &description.x,
                                            &description.y, &description.y, &preference.value, offered, results.data(),
                                            &count);
  if (status != CUBLAS_STATUS_SUCCESS) return to_cuda(status);
  if (count == 0) return cudaErrorNotSupported;
  const MatmulShape shape = shape_of(p);
  {
    const std::lock_guard lock(mutex_);
    if (const auto adopted = adopted_.find(shape); adopted != adopted_.end())
      for (int i = 0; i < count; ++i)
        if (settings_of(results[i].algo) == adopted->second.settings &&
            !(p.deterministic && splits_sums(results[i].algo))) {
          algorithm = known_[shape] = results[i].algo;
          return cudaSuccess;
        }
  }
  const auto* const first = static_cast<const cublasLtMatmulHeuristicResult_t*>(results.data());
  algorithm = first->algo;
  if (p.deterministic) {
    const auto* const whole =
        std::find_if(first, first + count, [](const auto& result) { return !splits_sums(result.algo); });
    if (whole != first + count) algorithm = whole->algo;
  } else if (is_capturing(stream)) {
    return cudaSuccess;  // nothing can be timed; nothing is remembered
  } else {
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    for (int i = 0; i < count; ++i) algorithms.push_back(results[i].algo);
    if (const int fastest = time(p, algorithms, stream); fastest >= 0) algorithm = algorithms[fastest];
  }
  const std::lock_guard lock(mutex_);
  known_[shape] = algorithm;
  ++chosen_;
  return cudaSuccess;
}

/// Each by itself, which also loads its code; of short ones those that are near the fastest once more, as in a tower.
int Matmul::time(const MatmulParams& p, const std::vector<cublasLtMatmulAlgo_t>& algorithms, cudaStream_t stream) {
  const auto run = [&](const cublasLtMatmulAlgo_t& algorithm, const void* weight, cudaStream_t on) {
    MatmulParams moved = p;
    moved.weight = weight;
    Description description;
    cublasStatus_t status = description.init(moved, moved.rows);
    if (status == CUBLAS_STATUS_SUCCESS) status = description.run(handle_, moved, algorithm, on);
    return to_cuda(status);
  };
  std::vector<float> alone(algorithms.size(), FLT_MAX);
  Stopwatch stopwatch;
  for (size_t i = 0; i < algorithms.size(); ++i)
    for (int k = 0; k < repetitions; ++k)
      alone[i] = std::min(alone[i], stopwatch.time([&] { return run(algorithms[i], p.weight, stream); }, stream));
  const int fastest = fastest_of(alone);
  if (fastest < 0 || alone[fastest] > short_ms) return fastest;
  std::vector<int> tried;
  std::vector<Way> ways;
  for (size_t i = 0; i < algorithms.size(); ++i)
    if (alone[i] <= close * alone[fastest]) {
      tried.push_back(static_cast<int>(i));
      ways.emplace_back([&run, &algorithm = algorithms[i]](const void* weight, cudaStream_t on) {
        return run(algorithm, weight, on);
      });
    }
  const int64_t bytes = p.in * p.out * (p.element == Element::float32 ? 4 : 2);
  const int best = ways.size() > 1 ? fastest_of(time_as_in_tower(ways, p.weight, bytes, stream)) : -1;
  return best < 0 ? fastest : tried[best];
}

std::optional<bool> Matmul::was_faster(MatmulShape shape) {
  shape.rows = bucket(shape.rows);
  const std::lock_guard lock(mutex_);
  if (const auto found = ways_.find(shape); found != ways_.end()) return found->second == first_way;
  const auto adopted = adopted_.find(shape);
  if (adopted == adopted_.end()) return std::nullopt;
  const int64_t way = adopted->second.settings[0];
  if (way != first_way && way != second_way) return std::nullopt;
  ways_[shape] = way;
  return way == first_way;
}

bool Matmul::is_faster(const MatmulTwoWays& choice, cudaStream_t stream) {
  if (const std::optional<bool> known = was_faster(choice.shape)) return *known;
  if (is_capturing(stream)) return choice.otherwise;
  MatmulShape shape = choice.shape;
  shape.rows = bucket(shape.rows);
  const int64_t bytes = shape.in * choice.weight_rows * (shape.element == static_cast<int>(Element::float32) ? 4 : 2);
  const int fastest = fastest_of(time_as_in_tower({choice.first, choice.second}, choice.weight, bytes, stream));
  const bool first = fastest < 0 ? choice.otherwise : fastest == 0;
  const std::lock_guard lock(mutex_);
  ways_[shape] = first ? first_way : second_way;
  ++chosen_;
  return first;
}

std::vector<MatmulChoice> Matmul::choices() const {
  const std::lock_guard lock(mutex_);
  std::vector<MatmulChoice> result;
  for (const auto& [shape, algorithm] : known_)
    if (const auto settings = settings_of(algorithm)) result.push_back({shape, *settings});
  for (const auto& [shape, way] : ways_) result.push_back({shape, {way}});
  return result;
}

void Matmul::adopt(const std::vector<MatmulChoice>& choices) {
  const std::lock_guard lock(mutex_);
  for (const MatmulChoice& choice : choices) adopted_.insert_or_assign(choice.shape, choice);
}

int64_t Matmul::chosen() const {
  const std::lock_guard lock(mutex_);
  return chosen_;
}

}  // namespace oriel::kernels
