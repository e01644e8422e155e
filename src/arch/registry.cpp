#include "arch/registry.hpp"

#include <fmt/ranges.h>

#include <array>

#include "core/error.hpp"

namespace oriel::arch {

std::unique_ptr<Architecture> make_gemma3(const ModelFiles& files);
std::unique_ptr<Architecture> make_mistral3(const ModelFiles& files);
std::unique_ptr<Architecture> make_pixtral(const ModelFiles& files);
std::unique_ptr<Architecture> make_qwen2_5_vl(const ModelFiles& files);
std::unique_ptr<Architecture> make_qwen2_vl(const ModelFiles& files);
std::unique_ptr<Architecture> make_siglip(const ModelFiles& files);

std::unique_ptr<TextArchitecture> make_gemma3_text(const ModelFiles& files);
std::unique_ptr<TextArchitecture> make_llava_text(const ModelFiles& files);
std::unique_ptr<TextArchitecture> make_mistral3_text(const ModelFiles& files);
std::unique_ptr<TextArchitecture> make_qwen2_5_vl_text(const ModelFiles& files);
std::unique_ptr<TextArchitecture> make_qwen2_vl_text(const ModelFiles& files);

namespace {

struct Registration {
  std::string_view model_type;
  std::unique_ptr<Architecture> (*make)(const ModelFiles&);
  std::unique_ptr<TextArchitecture> (*make_text)(const ModelFiles&);  ///< nullptr: no text side that generates
};

constexpr std::array registrations{
    Registration{"gemma3", make_gemma3, make_gemma3_text},
    Registration{"llava", make_pixtral, make_llava_text},
    Registration{"mistral3", make_mistral3, make_mistral3_text},
    Registration{"qwen2_5_vl", make_qwen2_5_vl, make_qwen2_5_vl_text},
    Registration{"qwen2_vl", make_qwen2_vl, make_qwen2_vl_text},
    Registration{"siglip", make_siglip, nullptr},
    Registration{"siglip_vision_model", make_siglip, nullptr},
};

}  // namespace

std::unique_ptr<Architecture> make_architecture(const ModelFiles& files) {
  const std::string type = files.model_type();
  for (const Registration& registration : registrations)
    if (registration.model_type == type) return registration.make(files);
  throw_error(ErrorCode::unsupported_model, "{}: expected one of {}, got \"{}\"", files.config["model_type"].where(),
              fmt::join(known_model_types(), ", "), type);
}

std::unique_ptr<TextArchitecture> make_text_architecture(const ModelFiles& files) {
  const std::string type = files.model_type();
  std::vector<std::string_view> known;
  for (const Registration& registration : registrations) {
    if (registration.make_text == nullptr) continue;
    if (registration.model_type == type) return registration.make_text(files);
    known.push_back(registration.model_type);
  }
  throw_error(ErrorCode::unsupported_model, "{}: expected a model that writes text, one of {}, got \"{}\"",
              files.config["model_type"].where(), fmt::join(known, ", "), type);
}

std::vector<std::string_view> known_model_types() {
  std::vector<std::string_view> types;
  for (const Registration& registration : registrations) types.push_back(registration.model_type);
  return types;
}

}  // namespace oriel::arch
