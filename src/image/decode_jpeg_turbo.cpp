// JPEG by libjpeg-turbo, with the settings that Pillow leaves at their defaults: the accurate integer transform and
// smooth ("fancy") upsampling of colour. Pixels equal Pillow's bit for bit.
#include "image/decode.hpp"
#include "image/decode_formats.hpp"
#include "image/decode_jpeg.hpp"

#if ORIEL_HAS_LIBJPEG_TURBO

#include <csetjmp>
#include <cstdio>
#include <vector>

#include <jerror.h>
#include <jpeglib.h>

namespace oriel::image {
namespace {

/// Real files have about ten scans; each costs a pass over all coefficients, so a small file could ask for hours.
constexpr int kMostScans = 100;

/// libjpeg reports errors by calling a function that must not return: it jumps back to the call that set `jump`.
/// Between the two lie only frames of libjpeg and of this file's plain functions, none of which owns a C++ object.
struct ErrorState {
  jpeg_error_mgr manager;  // first: libjpeg hands its address back
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
  int code;
};

struct Decompressor {
  jpeg_decompress_struct info;
  ErrorState error;
  jpeg_source_mgr source;
  jpeg_progress_mgr progress;
  bool has_too_many_scans;
};

extern "C" {
static void on_error(j_common_ptr info) {
  auto* error = reinterpret_cast<ErrorState*>(info->err);
  error->code = info->err->msg_code;
  info->err->format_message(info, error->message);
  std::longjmp(error->jump, 1);
}
/// Warnings: a picture with damaged places is shown as far as it goes, as Pillow does. A file that ends early is none.
static void on_message(j_common_ptr) {}

static void on_source_event(j_decompress_ptr) {}
/// There are no more bytes. "Try again later" makes the running call give up, where libjpeg's own sources would invent
/// an end marker and a grey rest.
static boolean on_empty(j_decompress_ptr) { return FALSE; }
static void on_skip(j_decompress_ptr info, long count) {
  jpeg_source_mgr& source = *info->src;
  const size_t skipped = count < 0 ? 0 : static_cast<size_t>(count);
  const size_t within = skipped < source.bytes_in_buffer ? skipped : source.bytes_in_buffer;
  source.next_input_byte += within;
  source.bytes_in_buffer -= within;
}
static void on_progress(j_common_ptr common) {
  auto* info = reinterpret_cast<j_decompress_ptr>(common);
  if (info->input_scan_number <= kMostScans) return;
  static_cast<Decompressor*>(info->client_data)->has_too_many_scans = true;
  info->err->msg_code = JERR_TOO_LITTLE_DATA;
  on_error(common);
}
}

/// Each of the calls below returns false if libjpeg reported an error or ran out of input.
bool create(Decompressor& d, Bytes bytes) {
  d.info.err = jpeg_std_error(&d.error.manager);
  d.error.manager.error_exit = on_error;
  d.error.manager.output_message = on_message;
  if (setjmp(d.error.jump) != 0) return false;
  jpeg_create_decompress(&d.info);
  d.source.next_input_byte = bytes.data();
  d.source.bytes_in_buffer = bytes.size();
  d.source.init_source = on_source_event;
  d.source.fill_input_buffer = on_empty;
  d.source.skip_input_data = on_skip;
  d.source.resync_to_restart = jpeg_resync_to_restart;
  d.source.term_source = on_source_event;
  d.info.src = &d.source;
  d.progress.progress_monitor = on_progress;
  d.info.progress = &d.progress;
  d.info.client_data = &d;
  return true;
}

bool read_header(Decompressor& d) {
  if (setjmp(d.error.jump) != 0) return false;
  int state = JPEG_HEADER_TABLES_ONLY;
  while (state == JPEG_HEADER_TABLES_ONLY) state = jpeg_read_header(&d.info, FALSE);
  return state == JPEG_HEADER_OK;
}

bool start(Decompressor& d) {
  if (setjmp(d.error.jump) != 0) return false;
  return jpeg_start_decompress(&d.info) != FALSE;
}

bool read_row(Decompressor& d, uint8_t* row) {
  if (setjmp(d.error.jump) != 0) return false;
  return jpeg_read_scanlines(&d.info, &row, 1) == 1;
}

/// What follows the last row: more scans, or the end marker. Running out of input here is no failure, as in Pillow.
bool finish(Decompressor& d) {
  if (setjmp(d.error.jump) != 0) return false;
  static_cast<void>(jpeg_finish_decompress(&d.info));
  return true;
}

/// Owns a Decompressor; each failed call becomes an Error.
class Reader {
 public:
  Reader(const Encoded& file, const JpegHeader& header) : file_(file), d_() {
    if (!create(d_, file.bytes())) fail("the decoder could not be made");
    // Coefficients of a progressive picture take at most 2 bytes for each of 4 components, sizes rounded up to blocks.
    d_.info.mem->max_memory_to_use =
        static_cast<long>(header.info.stored.width * header.info.stored.height * 16 + (64 << 20));
  }
  ~Reader() { jpeg_destroy_decompress(&d_.info); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  void start(const JpegHeader& header) {
    if (!read_header(d_)) fail("within the header");
    const Size size{d_.info.image_width, d_.info.image_height};
    if (size != header.info.stored || d_.info.num_components != header.components) {
      file_.malformed("it holds two frames: {} x {} with {} components, and {} x {} with {}", header.info.stored.width,
                      header.info.stored.height, header.components, size.width, size.height, d_.info.num_components);
    }
    d_.info.out_color_space = header.components == 1 ? JCS_GRAYSCALE : header.components == 3 ? JCS_RGB : JCS_CMYK;
    if (!oriel::image::start(d_)) fail("before the first row");
  }

  /// `row` takes width * components bytes.
  void read(uint8_t* row, int64_t y) {
    if (!read_row(d_, row)) fail(fmt::format("at row {} of {}", y, d_.info.image_height));
  }

  void finish() {
    if (!oriel::image::finish(d_)) fail("after the last row");
  }

 private:
  [[noreturn]] void fail(const std::string& place) const {
    if (d_.has_too_many_scans) file_.fail(ErrorCode::limit_exceeded, "expected at most {} scans", kMostScans);
    switch (d_.error.code) {
      case 0:
        file_.malformed("the file ends too early, {}", place);
      case JERR_OUT_OF_MEMORY:
        throw std::bad_alloc();
      case JERR_ARITH_NOTIMPL:
      case JERR_SOF_UNSUPPORTED:
      case JERR_BAD_PRECISION:
      case JERR_CONVERSION_NOTIMPL:
      case JERR_CCIR601_NOTIMPL:
      case JERR_FRACT_SAMPLE_NOTIMPL:
        file_.unsupported("{} ({})", d_.error.message, place);
      default:
        file_.malformed("{} ({})", d_.error.message, place);
    }
  }

  const Encoded& file_;
  Decompressor d_;
};

/// a * b / 255, rounded to nearest.
uint32_t multiply_255(uint32_t a, uint32_t b) {
  const uint32_t product = a * b + 128;
  return (product + (product >> 8)) >> 8;
}

/// Pillow's conversion: samples are taken as Adobe writes them, inverted, and ink is subtracted without a profile.
void cmyk_to_rgb(const uint8_t* cmyk, int64_t width, uint8_t* rgb) {
  for (int64_t x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
    const uint32_t light = cmyk[3];
    for (int c = 0; c < 3; ++c) rgb[c] = static_cast<uint8_t>(light - multiply_255(255U - cmyk[c], light));
  }
}

}  // namespace

bool has_libjpeg_turbo() noexcept { return true; }

Pixels decode_jpeg(const Encoded& file, const ImageInfo& info) {
  const JpegHeader header = read_jpeg_markers(file);
  Reader reader(file, header);
  reader.start(header);
  Pixels pixels = Pixels::allocate(info.stored, 3);
  std::vector<uint8_t> row(static_cast<size_t>(info.stored.width) * 4);
  for (int64_t y = 0; y < info.stored.height; ++y) {
    uint8_t* rgb = pixels.row(y);
    reader.read(header.components == 3 ? rgb : row.data(), y);
    if (header.components == 4) cmyk_to_rgb(row.data(), info.stored.width, rgb);
    for (int64_t x = 0; header.components == 1 && x < info.stored.width; ++x) {
      rgb[3 * x] = rgb[3 * x + 1] = rgb[3 * x + 2] = row[static_cast<size_t>(x)];
    }
  }
  reader.finish();
  return pixels;
}

}  // namespace oriel::image

#else

namespace oriel::image {

bool has_libjpeg_turbo() noexcept { return false; }

Pixels decode_jpeg(const Encoded& file, const ImageInfo& info) { return decode_jpeg_with_stb(file, info); }

}  // namespace oriel::image

#endif
