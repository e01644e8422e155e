// A target that fails on purpose, so that tests can see that findings are found.
#include "core/error.hpp"
#include "fuzz/fuzz.hpp"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace oriel;
  const std::string_view input = fuzz::as_text({data, size});
  fuzz::succeeds([&] {
    if (input.starts_with("internal")) throw_error(ErrorCode::internal, "planted");
    if (input.starts_with("refused")) throw_error(ErrorCode::malformed_image, "planted");
  });
  fuzz::require(!input.starts_with("promise"), "planted");
  return 0;
}
