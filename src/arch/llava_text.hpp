#pragma once
// The text models that checkpoints of the llava group wrap.
#include <memory>
#include <string>

#include "arch/text_architecture.hpp"

namespace oriel::arch {

/// What the wrapping checkpoint says about its text model.
struct TextWrapper {
  std::string family;
  int64_t image_token = 0;
  bool tied_head = false;
};

[[nodiscard]] std::unique_ptr<TextArchitecture> make_llama_text(const Json& text, TextWrapper wrapper);
/// `is_small_3` says what an absent text_config means: Mistral-Small-3.1's sizes instead of the class's defaults.
[[nodiscard]] std::unique_ptr<TextArchitecture> make_mistral_text(const Json& text, TextWrapper wrapper,
                                                                  bool is_small_3);

}  // namespace oriel::arch
