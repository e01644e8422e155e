#include "oriel/image.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <system_error>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "core/memory_errors.hpp"
#include "image/alpha.hpp"
#include "image/decode.hpp"
#include "image/orient.hpp"

namespace oriel {
namespace {

image::Bytes as_bytes(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}

constexpr const char* reading = "the picture was read";

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

/// The whole file. Only regular files are read: a pipe or a device has no end that could be checked first.
std::vector<std::byte> read_file(const std::filesystem::path& path, const ImageLimits& limits) {
  const std::string name = path.string();
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    throw_error(ErrorCode::file_error, "{}: expected a picture file, and there is none ({})", name,
                error ? error.message() : "no such file");
  }
  if (!std::filesystem::is_regular_file(status)) {
    throw_error(ErrorCode::file_error, "{}: expected a picture file, got something that is not a regular file", name);
  }
  const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path.c_str(), "rb"));
  if (!file) throw_error(ErrorCode::file_error, "{}: can't be opened: {}", name, std::strerror(errno));
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) throw_error(ErrorCode::file_error, "{}: can't be read: {}", name, error.message());
  if (!std::in_range<int64_t>(size) || static_cast<int64_t>(size) > limits.max_file_bytes) {
    throw_error(ErrorCode::limit_exceeded, "{}: expected a file of at most {} bytes (max_file_bytes), got {}", name,
                limits.max_file_bytes, size);
  }
  std::vector<std::byte> bytes(size);
  const size_t read = std::fread(bytes.data(), 1, bytes.size(), file.get());
  if (read != bytes.size()) {
    throw_error(ErrorCode::file_error, "{}: expected {} bytes, could read {}", name, bytes.size(), read);
  }
  return bytes;
}

}  // namespace

/// The content hash, once somebody has asked for it.
struct Image::Hash {
  std::once_flag computed;
  ContentHash value;
};

Image::Image(Size size, std::shared_ptr<const uint8_t[]> rgb, std::string name)
    : size_(size), hash_(std::make_shared<Hash>()), rgb_(std::move(rgb)), name_(std::move(name)) {}

Image Image::open(const std::filesystem::path& path, const ImageOptions& options) {
  const std::string name = path.string();
  return with_memory_errors(name, reading, [&] { return decode(read_file(path, options.limits), options, name); });
}

Image Image::decode(std::span<const std::byte> bytes, const ImageOptions& options, const std::string& name) {
  return with_memory_errors(name, reading, [&] {
    const image::Bytes file = as_bytes(bytes);
    const ImageInfo info = image::read_header(file, options.limits, name);
    const bool keep_alpha = options.alpha.kind == AlphaPolicy::Kind::composite;
    image::Pixels pixels = image::flatten(image::decode_pixels(file, info, keep_alpha, name), options.alpha);
    if (options.exif == ExifPolicy::apply) pixels = image::make_upright(std::move(pixels), info.orientation);
    return Image(pixels.size, std::move(pixels.data), name);
  });
}

Image Image::from_pixels(const PixelView& view, const ImageOptions& options, const std::string& name) {
  if (view.channels < 1 || view.channels > 4) {
    throw_error(ErrorCode::invalid_argument, "{}: expected 1 to 4 channels, got {}", name, view.channels);
  }
  if (view.size.width <= 0 || view.size.height <= 0) {
    throw_error(ErrorCode::invalid_argument, "{}: expected a positive width and height, got {} x {}", name,
                view.size.width, view.size.height);
  }
  if (view.data == nullptr) throw_error(ErrorCode::invalid_argument, "{}: expected pixels, got a null pointer", name);
  image::check_limits(view.size, options.limits, name);
  const int64_t row_bytes = checked_multiply(view.size.width, view.channels, name);
  const int64_t stride = view.stride_bytes == 0 ? row_bytes : view.stride_bytes;
  if (stride < row_bytes && stride > -row_bytes) {
    throw_error(ErrorCode::invalid_argument,
                "{}: expected a stride of at least {} bytes either way ({} pixels of {} channels), got {}", name,
                row_bytes, view.size.width, view.channels, stride);
  }
  return with_memory_errors(name, reading, [&] {
    image::Pixels pixels = image::Pixels::allocate(view.size, 3);
    for (int64_t y = 0; y < view.size.height; ++y) {
      image::to_rgb(view.data + y * stride, view.size.width, view.channels, options.alpha, pixels.row(y));
    }
    return Image(pixels.size, std::move(pixels.data), name);
  });
}

Image Image::crop(const Rect& part) const {
  const auto fits = [](int64_t begin, int64_t length, int64_t whole) {
    return begin >= 0 && length > 0 && length <= whole && begin <= whole - length;
  };
  if (!fits(part.x, part.size.width, size_.width) || !fits(part.y, part.size.height, size_.height))
    throw_error(ErrorCode::invalid_argument, "{}: expected a part of {} x {} pixels, got {} x {} at ({}, {})", name_,
                size_.width, size_.height, part.size.width, part.size.height, part.x, part.y);
  const size_t offset = static_cast<size_t>(part.y * size_.width + part.x) * 3;
  return from_pixels({.data = rgb_.get() + offset, .size = part.size, .stride_bytes = size_.width * 3},
                     {.limits = {.max_side = size_.width + size_.height, .max_pixels = size_.width * size_.height}},
                     name_);
}

ImageInfo Image::probe(const std::filesystem::path& path, const ImageLimits& limits) {
  const std::string name = path.string();
  return with_memory_errors(name, reading, [&] { return probe(read_file(path, limits), limits, name); });
}

ImageInfo Image::probe(std::span<const std::byte> bytes, const ImageLimits& limits, const std::string& name) {
  return with_memory_errors(name, reading, [&] { return image::read_header(as_bytes(bytes), limits, name); });
}

std::span<const uint8_t> Image::rgb() const noexcept {
  if (!rgb_) return {};  // moved from
  return {rgb_.get(), static_cast<size_t>(size_.width) * static_cast<size_t>(size_.height) * 3};
}

ContentHash Image::content_hash() const {
  const auto compute = [this] {
    return Hasher().update(size_.width).update(size_.height).update(std::as_bytes(rgb())).digest();
  };
  if (!hash_) return compute();  // moved from
  std::call_once(hash_->computed, [&] { hash_->value = compute(); });
  return hash_->value;
}

}  // namespace oriel
