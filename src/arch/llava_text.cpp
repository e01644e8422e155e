// Which text model a checkpoint of the llava group wraps: spec/weights.md 3 and 4.
#include "arch/llava_text.hpp"

#include "arch/decoder_config.hpp"
#include "core/error.hpp"

namespace oriel::arch {

std::unique_ptr<TextArchitecture> make_llava_text(const ModelFiles& files) {
  const Json& config = files.config;
  const Json text = config["text_config"];
  const Json type = text["model_type"];
  const bool is_pixtral = config["vision_config"]["model_type"].string_or("") == "pixtral";
  const TextWrapper wrapper{
      .family = is_pixtral ? "Pixtral" : "LLaVA",
      .image_token = read_image_token(config, 32000),
      .tied_head = config["tie_word_embeddings"].boolean_or(false) || text["tie_word_embeddings"].boolean_or(false)};
  if (type.string_or("llama") == "llama") return make_llama_text(text, wrapper);
  if (type.string() == "mistral") return make_mistral_text(text, wrapper, /*is_small_3=*/false);
  throw_error(ErrorCode::unsupported_model, "{}: expected \"llama\" or \"mistral\", got {}", type.where(), type.dump());
}

std::unique_ptr<TextArchitecture> make_mistral3_text(const ModelFiles& files) {
  const Json& config = files.config;
  const Json text = config["text_config"];
  const Json type = text["model_type"];
  if (type.string_or("mistral") != "mistral")
    throw_error(ErrorCode::unsupported_model, "{}: expected \"mistral\", got {}", type.where(), type.dump());
  return make_mistral_text(text,
                           {.family = "Mistral3",
                            .image_token = read_image_token(config, 10),
                            .tied_head = config["tie_word_embeddings"].boolean_or(true)},
                           !text.has_value());
}

}  // namespace oriel::arch
