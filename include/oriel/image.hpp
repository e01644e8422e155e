#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include <oriel/crops.hpp>
#include <oriel/export.hpp>
#include <oriel/types.hpp>

namespace oriel {

/// Whether the orientation that a camera wrote into the file is applied, so that the model sees what people see.
/// It concerns encoded pictures only; raw pixels are always taken as they are.
enum class ExifPolicy { apply, ignore };

/// What happens to transparency.
struct AlphaPolicy {
  enum class Kind {
    drop,       ///< alpha is thrown away and hidden colours appear: what transformers does (Pillow's convert("RGB"))
    composite,  ///< the picture is laid over `background`, rounded exactly as Pillow's alpha_composite does. Palette
                ///< entries and colour keys count; a key is compared with samples as the file stores them
  };
  Kind kind = Kind::drop;
  std::array<uint8_t, 3> background{255, 255, 255};  ///< red, green, blue

  [[nodiscard]] static constexpr AlphaPolicy drop() { return {}; }
  [[nodiscard]] static constexpr AlphaPolicy white() { return {Kind::composite, {255, 255, 255}}; }
  [[nodiscard]] static constexpr AlphaPolicy over(uint8_t r, uint8_t g, uint8_t b) {
    return {Kind::composite, {r, g, b}};
  }
  friend bool operator==(const AlphaPolicy&, const AlphaPolicy&) = default;
};

/// Limits that are tested on a picture's header, before pixels are allocated or decoded; max_file_bytes before the file
/// is read. What passes one is a limit_exceeded.
struct ImageLimits {
  int64_t max_side = 65'535;           ///< pixels, either side
  int64_t max_pixels = 178'956'970;    ///< width * height; 512 MiB of RGB, the limit at which Pillow warns doubled
  int64_t max_file_bytes = 512 << 20;  ///< size of the encoded file
};

struct ImageOptions {
  ExifPolicy exif = ExifPolicy::apply;
  AlphaPolicy alpha = AlphaPolicy::drop();
  ImageLimits limits = {};
};

/// What a picture's header says.
struct ImageInfo {
  std::string format = {};  ///< "jpeg", "png", "webp", "bmp" or "gif"
  Size stored = {};         ///< as stored in the file
  int orientation = 1;      ///< EXIF orientation, 1 to 8; 1 where the file has none
  bool has_alpha = false;   ///< an alpha channel, a transparent palette entry or a colour key
  /// The size that Image::open gives under `exif`: sides are swapped by orientations 5 to 8.
  [[nodiscard]] Size upright(ExifPolicy exif = ExifPolicy::apply) const {
    return exif == ExifPolicy::apply && orientation >= 5 ? Size{stored.height, stored.width} : stored;
  }
};

/// Raw 8-bit pixels of the caller, interleaved. The memory is read during the call only.
struct PixelView {
  const uint8_t* data = nullptr;
  Size size = {};
  int channels = 3;          ///< 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA
  int64_t stride_bytes = 0;  ///< from one row to the next; 0 means width * channels. Negative strides are allowed.
};

/// Raw 8-bit RGB pixels in the memory of the GPU that a tower runs on, such as a video decoder leaves them:
/// interleaved, with a fourth byte to skip, in planes, bottom up, mirrored. Read in the order of the call's stream, or
/// else of the calling thread's current CUDA stream as libtorch knows it; they must stay until that work is done.
/// Managed memory, and pinned host memory that is mapped at its own address, will do as well; other memory is an
/// invalid_argument.
struct DevicePixelView {
  const uint8_t* data = nullptr;  ///< red of the top left pixel
  Size size = {};
  int64_t row_stride_bytes = 0;      ///< from one row to the next, of either sign; 0: width * |column_stride_bytes|
  int64_t column_stride_bytes = 3;   ///< from one pixel to the next; negative for mirrored pictures
  int64_t channel_stride_bytes = 1;  ///< from red to green to blue; negative for BGR
};

/// A decoded picture: 8-bit RGB, upright. A value: copies share the pixels, which never change. Safe from many threads.
///
/// JPEG is decoded by libjpeg-turbo and WebP by libwebp, the decoders that Pillow uses, so that pixels equal Pillow's
/// bit for bit; a build without libjpeg-turbo falls back to stb_image, whose JPEG pixels differ in places. PNG, BMP and
/// GIF (the first frame) are decoded to Pillow's pixels in every build.
/// All modes become RGB as Pillow's convert("RGB") makes them.
class ORIEL_API Image {
 public:
  /// Reads and decodes a file, on the calling thread. Throws file_error, malformed_image, unsupported_image,
  /// limit_exceeded, unavailable (a codec that the build lacks) and out_of_memory; the message names the file.
  [[nodiscard]] static Image open(const std::filesystem::path& path, const ImageOptions& options = {});
  /// Decodes bytes in memory, which are read during the call only. `name` stands for the file in error messages. Same
  /// errors as open but for file_error.
  [[nodiscard]] static Image decode(std::span<const std::byte> bytes, const ImageOptions& options = {},
                                    const std::string& name = "image");
  /// Copies raw pixels. Only `options.alpha` and `options.limits` are used. Throws invalid_argument, limit_exceeded,
  /// out_of_memory.
  [[nodiscard]] static Image from_pixels(const PixelView& pixels, const ImageOptions& options = {},
                                         const std::string& name = "image");

  /// What the header says, without decoding: enough for VisionTower::plan. The whole file is read, as open does. Same
  /// errors as open, as far as the header shows them.
  [[nodiscard]] static ImageInfo probe(const std::filesystem::path& path, const ImageLimits& limits = {});
  [[nodiscard]] static ImageInfo probe(std::span<const std::byte> bytes, const ImageLimits& limits = {},
                                       const std::string& name = "image");

  /// A part of the picture as a picture of its own, under the same name. Throws invalid_argument for one that is empty
  /// or does not lie inside, out_of_memory.
  [[nodiscard]] Image crop(const Rect& part) const;

  [[nodiscard]] Size size() const noexcept { return size_; }
  /// [height, width, 3] bytes without padding.
  [[nodiscard]] std::span<const uint8_t> rgb() const noexcept;
  /// The path or name given at creation.
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// Hash of size and pixels: equal pictures have equal hashes, whatever file they came from. Computed by the first
  /// call, at the speed of memory, and kept for all copies.
  [[nodiscard]] ContentHash content_hash() const;

 private:
  struct Hash;
  Image(Size size, std::shared_ptr<const uint8_t[]> rgb, std::string name);
  Size size_;
  std::shared_ptr<Hash> hash_;
  std::shared_ptr<const uint8_t[]> rgb_;
  std::string name_;
};

}  // namespace oriel
