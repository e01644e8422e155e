#include "core/safetensors.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "core/error.hpp"
#include "core/json.hpp"

namespace oriel {
namespace {

constexpr int64_t length_bytes = 8;                // the little-endian header length at the start
constexpr int64_t max_header_bytes = 100'000'000;  // the format's own limit

std::string system_message(int error) { return std::generic_category().message(error); }

/// Owns an open file.
class FileDescriptor {
 public:
  explicit FileDescriptor(int value) : value_(value) {}
  ~FileDescriptor() {
    if (value_ >= 0) ::close(value_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  [[nodiscard]] int get() const { return value_; }

 private:
  int value_;
};

/// Owns mapped memory.
class MappedBytes {
 public:
  MappedBytes() = default;
  ~MappedBytes() {
    if (data_ != nullptr) ::munmap(data_, size_);
  }
  MappedBytes(const MappedBytes&) = delete;
  MappedBytes& operator=(const MappedBytes&) = delete;

  void map(const FileDescriptor& file, size_t size, const std::string& where) {
    void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (data == MAP_FAILED) {
      throw_error(ErrorCode::file_error, "{}: {} bytes can't be mapped: {}", where, size, system_message(errno));
    }
    data_ = data;
    size_ = size;
  }
  [[nodiscard]] std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace

struct SafetensorsFile::Mapping {
  std::filesystem::path path;
  MappedBytes mapped;
  std::string_view header;
  std::vector<TensorInfo> tensors;
  std::unordered_map<std::string_view, size_t> by_name;  // keys point into `tensors`
  std::map<std::string, std::string> metadata;
};

namespace {

/// Bits of one element, or 0 if the format has no such dtype.
int64_t dtype_bits(std::string_view dtype) {
  struct Width {
    std::string_view name;
    int64_t bits;
  };
  static constexpr Width widths[] = {
      {"F64", 64},    {"F32", 32},    {"F16", 16},    {"BF16", 16},   {"I64", 64},    {"I32", 32}, {"I16", 16},
      {"I8", 8},      {"U64", 64},    {"U32", 32},    {"U16", 16},    {"U8", 8},      {"BOOL", 8}, {"C64", 64},
      {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},
  };
  const auto* found = std::ranges::find(widths, dtype, &Width::name);
  return found == std::end(widths) ? 0 : found->bits;
}

/// Bytes of a tensor; throws `code` if they do not fit 64 bits or, for dtypes below one byte, are no whole number.
int64_t tensor_bytes(std::span<const int64_t> shape, int64_t bits, const std::string& where, ErrorCode code) {
  int64_t elements = 1;
  for (const int64_t length : shape) elements = checked_multiply(elements, length, where, code);
  const int64_t total_bits = checked_multiply(elements, bits, where, code);
  if (total_bits % 8 != 0) {
    throw_error(code, "{}: expected a whole number of bytes, got {} elements of {} bits", where, elements, bits);
  }
  return total_bits / 8;
}

/// One entry of the header; `begin` and `end` are relative to the file afterwards.
TensorInfo read_tensor(const std::string& name, const Json& entry, int64_t data_begin, int64_t data_bytes) {
  const std::string where = entry.where();
  TensorInfo tensor;
  tensor.name = name;
  tensor.dtype = entry["dtype"].string();
  const int64_t bits = dtype_bits(tensor.dtype);
  if (bits == 0) {
    throw_error(ErrorCode::malformed_model, "{}: expected a dtype of the safetensors format, got {}",
                entry["dtype"].where(), quote_json(tensor.dtype));
  }
  for (const Json& length : entry["shape"].elements()) {
    tensor.shape.push_back(length.integer_in(0, std::numeric_limits<int64_t>::max()));
  }
  const Json offsets = entry["data_offsets"];
  const std::vector<int64_t> range = offsets.integers();
  if (range.size() != 2 || range[0] < 0 || range[1] < range[0]) {
    throw_error(ErrorCode::malformed_model, "{}: expected [begin, end] with 0 <= begin <= end, got {}", offsets.where(),
                shape_to_string(range));
  }
  if (range[1] > data_bytes) {
    throw_error(ErrorCode::malformed_model,
                "{}: expected an end within the file's {} bytes of data, got {}; is the file truncated?",
                offsets.where(), data_bytes, range[1]);
  }
  const int64_t expected = tensor_bytes(tensor.shape, bits, where, ErrorCode::malformed_model);
  if (range[1] - range[0] != expected) {
    throw_error(ErrorCode::malformed_model, "{}: expected {} bytes for {} {}, got {}", where, expected, tensor.dtype,
                shape_to_string(tensor.shape), range[1] - range[0]);
  }
  tensor.begin = data_begin + range[0];
  tensor.end = data_begin + range[1];
  return tensor;
}

/// Tensors must cover the data exactly: sorted by position, each begins where the one before it ends.
void check_coverage(const std::vector<TensorInfo>& sorted, int64_t data_begin, int64_t data_end,
                    const std::string& where) {
  int64_t position = data_begin;
  const TensorInfo* previous = nullptr;
  for (const TensorInfo& tensor : sorted) {
    if (tensor.begin < position) {
      throw_error(ErrorCode::malformed_model,
                  "{}: expected tensors that do not overlap, got {} at [{}, {}) and {} at [{}, {})", where,
                  previous->name, previous->begin - data_begin, previous->end - data_begin, tensor.name,
                  tensor.begin - data_begin, tensor.end - data_begin);
    }
    if (tensor.begin > position) {
      throw_error(ErrorCode::malformed_model, "{}: expected tensors without gaps, got {} unused bytes before {}", where,
                  tensor.begin - position, tensor.name);
    }
    position = tensor.end;
    previous = &tensor;
  }
  if (position != data_end) {
    throw_error(ErrorCode::malformed_model,
                "{}: expected tensors up to the end of the file, got {} unused bytes after them", where,
                data_end - position);
  }
}

/// The text of the header, once its length is known to be sane.
std::string_view header_text(std::span<const std::byte> file, const std::string& where) {
  const auto size = static_cast<int64_t>(file.size());
  if (size < length_bytes) {
    throw_error(ErrorCode::malformed_model, "{}: expected a safetensors file of at least 8 bytes, got {}", where, size);
  }
  uint64_t length = 0;
  for (size_t i = length_bytes; i-- > 0;) length = length << 8 | std::to_integer<uint64_t>(file[i]);
  if (length > static_cast<uint64_t>(max_header_bytes)) {
    throw_error(ErrorCode::malformed_model,
                "{}: expected a header of at most {} bytes, got {}; is this a safetensors file?", where,
                max_header_bytes, length);
  }
  if (static_cast<int64_t>(length) > size - length_bytes) {
    throw_error(ErrorCode::malformed_model,
                "{}: expected a header of {} bytes, got {} bytes in the file after the length", where, length,
                size - length_bytes);
  }
  const auto* text = reinterpret_cast<const char*>(file.data()) + length_bytes;
  return {text, static_cast<size_t>(length)};
}

}  // namespace

std::string shape_to_string(std::span<const int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  const std::string where = path.string();
  // O_NONBLOCK: a pipe in place of a file must not hang the call; regular files ignore it.
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) throw_error(ErrorCode::file_error, "{}: can't be opened: {}", where, system_message(errno));
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) {
    throw_error(ErrorCode::file_error, "{}: can't be read: {}", where, system_message(errno));
  }
  if (!S_ISREG(status.st_mode)) {
    throw_error(ErrorCode::file_error, "{}: expected a file, found a directory or device", where);
  }

  auto mapping = std::make_shared<Mapping>();
  mapping->path = path;
  if (status.st_size > 0) mapping->mapped.map(file, static_cast<size_t>(status.st_size), where);
  mapping->header = header_text(mapping->mapped.bytes(), where);
  const int64_t data_begin = length_bytes + static_cast<int64_t>(mapping->header.size());
  const int64_t data_end = status.st_size;

  const Json header = Json::parse(mapping->header, where + ": header", Json::DuplicateKeys::refuse);
  for (const auto& [name, entry] : header.members()) {
    if (name == "__metadata__") {
      for (const auto& [key, value] : entry.members()) mapping->metadata[key] = value.string();
    } else {
      mapping->tensors.push_back(read_tensor(name, entry, data_begin, data_end - data_begin));
    }
  }
  std::ranges::stable_sort(mapping->tensors, {}, [](const TensorInfo& t) { return std::pair(t.begin, t.end); });
  check_coverage(mapping->tensors, data_begin, data_end, where);
  for (size_t i = 0; i < mapping->tensors.size(); ++i) mapping->by_name.emplace(mapping->tensors[i].name, i);
  return SafetensorsFile(std::move(mapping));
}

SafetensorsFile::SafetensorsFile(std::shared_ptr<const Mapping> mapping) : mapping_(std::move(mapping)) {}

const std::filesystem::path& SafetensorsFile::path() const { return mapping_->path; }
const std::vector<TensorInfo>& SafetensorsFile::tensors() const { return mapping_->tensors; }
const std::map<std::string, std::string>& SafetensorsFile::metadata() const { return mapping_->metadata; }
std::string_view SafetensorsFile::header() const { return mapping_->header; }

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto found = mapping_->by_name.find(name);
  return found == mapping_->by_name.end() ? nullptr : &mapping_->tensors[found->second];
}

std::span<const std::byte> SafetensorsFile::bytes(const TensorInfo& tensor) const {
  const std::span<const std::byte> file = mapping_->mapped.bytes();
  if (tensor.begin < 0 || tensor.end < tensor.begin || tensor.end > static_cast<int64_t>(file.size())) {
    throw_error(ErrorCode::invalid_argument, "{}: expected a tensor of this file, got {} at bytes [{}, {})",
                mapping_->path.string(), tensor.name, tensor.begin, tensor.end);
  }
  return file.subspan(static_cast<size_t>(tensor.begin), static_cast<size_t>(tensor.end - tensor.begin));
}

void SafetensorsFile::release(const TensorInfo& tensor) const {
  const std::span<const std::byte> data = bytes(tensor);
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  // Whole pages only: those at the ends may belong to a neighbour that is still being read.
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data.data()) + page - 1) / page * page;
  const uintptr_t last = reinterpret_cast<uintptr_t>(data.data() + data.size()) / page * page;
  // A hint: the pages come back from the file if they are read again, so a failure changes nothing.
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

// Writing.

namespace {

struct Layout {
  std::string header;                       // with its length in front and spaces behind it
  std::vector<const TensorToWrite*> order;  // in which bytes follow the header
};

Layout lay_out(std::span<const TensorToWrite> tensors, const std::map<std::string, std::string>& metadata,
               const std::string& where) {
  Layout layout;
  for (const TensorToWrite& tensor : tensors) layout.order.push_back(&tensor);
  std::ranges::stable_sort(layout.order, std::ranges::greater(),
                           [](const TensorToWrite* tensor) { return dtype_bits(tensor->dtype); });

  std::vector<std::string> members;
  std::unordered_map<std::string_view, bool> names;
  const auto check_text = [&](const std::string& text) {
    if (!is_utf8(text)) throw_error(ErrorCode::invalid_argument, "{}: expected UTF-8 text, got other bytes", where);
  };
  if (!metadata.empty()) {
    std::vector<std::string> pairs;
    for (const auto& [key, value] : metadata) {
      check_text(key);
      check_text(value);
      pairs.push_back(quote_json(key) + ":" + quote_json(value));
    }
    members.push_back(fmt::format(R"("__metadata__":{{{}}})", fmt::join(pairs, ",")));
  }
  int64_t position = 0;
  for (const TensorToWrite* tensor : layout.order) {
    check_text(tensor->name);
    const std::string place = fmt::format("{}: {}", where, tensor->name);
    if (tensor->name == "__metadata__" || !names.emplace(tensor->name, true).second) {
      throw_error(ErrorCode::invalid_argument, "{}: expected a name that is free, got one that is taken", place);
    }
    const int64_t bits = dtype_bits(tensor->dtype);
    if (bits == 0) {
      throw_error(ErrorCode::invalid_argument, "{}: expected a dtype of the safetensors format, got {}", place,
                  tensor->dtype);
    }
    const int64_t expected = tensor_bytes(tensor->shape, bits, place, ErrorCode::invalid_argument);
    const auto size = static_cast<int64_t>(tensor->bytes.size());
    if (size != expected) {
      throw_error(ErrorCode::invalid_argument, "{}: expected {} bytes for {} {}, got {}", place, expected,
                  tensor->dtype, shape_to_string(tensor->shape), size);
    }
    const int64_t end = checked_add(position, size, place, ErrorCode::invalid_argument);
    members.push_back(fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                                  quote_json(tensor->name), tensor->dtype, fmt::join(tensor->shape, ","), position,
                                  end));
    position = end;
  }

  std::string json = fmt::format("{{{}}}", fmt::join(members, ","));
  constexpr size_t alignment = 64;
  json.append((alignment - (length_bytes + json.size()) % alignment) % alignment, ' ');
  if (static_cast<int64_t>(json.size()) > max_header_bytes) {
    throw_error(ErrorCode::invalid_argument, "{}: expected a header of at most {} bytes, got {}", where,
                max_header_bytes, json.size());
  }
  for (size_t i = 0; i < length_bytes; ++i) layout.header += static_cast<char>(json.size() >> (8 * i) & 0xff);
  layout.header += json;
  return layout;
}

/// A file under a temporary name beside `target`, removed again unless commit() renames it.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::filesystem::path& target) : target_(target), path_(free_name(target)) {
    if (file_.get() < 0) fail("created");
  }
  ~TemporaryFile() {
    if (file_.get() >= 0 && !committed_) ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void write(std::span<const std::byte> bytes) const {
    while (!bytes.empty()) {
      const ssize_t written = ::write(file_.get(), bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail("written");
      bytes = bytes.subspan(static_cast<size_t>(written));
    }
  }
  void commit() {
    if (::fsync(file_.get()) != 0) fail("written");
    if (::rename(path_.c_str(), target_.c_str()) != 0) fail("renamed to its final name");
    committed_ = true;
  }

 private:
  /// Names of one process differ by process number and address, and O_EXCL refuses a name that is taken.
  std::string free_name(const std::filesystem::path& target) const {
    return fmt::format("{}.{}.{:x}.part", target.string(), ::getpid(), reinterpret_cast<uintptr_t>(this));
  }
  [[noreturn]] void fail(std::string_view action) const {
    const int error = errno;
    throw_error(ErrorCode::file_error, "{}: can't be {}: {}", target_.string(), action, system_message(error));
  }

  std::filesystem::path target_;
  std::string path_;
  FileDescriptor file_{::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)};
  bool committed_ = false;
};

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata) {
  const Layout layout = lay_out(tensors, metadata, path.string());
  TemporaryFile file(path);
  file.write(std::as_bytes(std::span(layout.header)));
  for (const TensorToWrite* tensor : layout.order) file.write(tensor->bytes);
  file.commit();
}

}  // namespace oriel
